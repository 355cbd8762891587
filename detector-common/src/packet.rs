//! Where packet bytes come from, and the two words every part of Detector uses for them.

/// Which way a packet travels between the user and the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the UE to the application: the user's action.
    Uplink = 0,
    /// From the application to the UE: the answer.
    Downlink = 1,
}

/// A transport that an application endpoint can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// IP protocol 6 (RFC 9293).
    Tcp = 6,
    /// IP protocol 17 (RFC 768).
    Udp = 17,
}
