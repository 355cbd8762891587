//! What application protocols say: from payload bytes to [`Fact`]s, nothing else. No clock, no
//! rules, no sockets, so that the live agent, replay and fuzzing read with the same code.
//!
//! Protocols over datagrams read one datagram at a time; protocols over streams are asked for one
//! [`Step`] at a time over the bytes that are contiguous so far.

#[cfg(test)]
mod client;
pub mod coap;
pub mod dns;
#[cfg(test)]
mod drive;
pub mod fact;
pub mod h2;
pub mod http1;
pub mod mqtt;
pub mod proxy;
pub mod quic;
mod target;
pub mod text;
pub mod tls;

pub use fact::Fact;

/// One of the two directions of a flow. Readers that keep something for both (MQTT, CoAP) need only
/// that the same direction is always called the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// One direction; of the flow's first packet seen, say.
    Forth,
    /// The other.
    Back,
}

/// What one step says: nearly always nothing or one thing, which takes no memory of its own.
pub type Facts = smallvec::SmallVec<[Fact; 1]>;

/// What a reader made of the front of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The bytes end inside a message; ask again with the same bytes and more behind them.
    More,
    /// The first `consumed` bytes (at least one) are read, and said this, if anything.
    Took {
        /// Bytes to drop from the front. May reach beyond the bytes that are there: what is to
        /// come is then skipped unread (a body of known length).
        consumed: u64,
        /// What they said, in order.
        facts: Facts,
    },
    /// Not this protocol, or damaged beyond reading on.
    Not,
}
