//! From a frame down to its innermost TCP segments and UDP datagrams.
//!
//! A capture holds more than the hooks see: other link layers, and whole fragment groups, which can
//! be put together here because memory is no matter. `ether` and `tunnel` know the headers that lead
//! to IP, `network` IP itself and what it carries. The headers are those of
//! [`detector_common::wire`]; rules on a capture are judged by [`detector_common::parse`] all the same.

use std::net::IpAddr;

use detector_common::packet::Address;

use super::{
    file::Frame,
    fragment::Fragments,
    link::{Content, wireless},
};
use crate::flow::{Segment, Stamp};

/// Headers of one kind inside another. Deeper nesting is an attack or a loop.
const MAX_DEPTH: usize = 16;

/// A part of a frame, and how long it was on the wire.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) wire: usize,
}

impl<'a> View<'a> {
    /// Without its first `count` bytes.
    pub(super) fn skip(self, count: usize) -> Option<Self> {
        Some(Self { bytes: self.bytes.get(count..)?, wire: self.wire.saturating_sub(count) })
    }

    /// Only its first `count` bytes; less if there are less.
    pub(super) fn limit(self, count: usize) -> Self {
        let wire = self.wire.min(count);
        Self { bytes: &self.bytes[..self.bytes.len().min(wire)], wire }
    }

    /// Of these bytes, as many as `part` of them is.
    fn at(self, part: &'a [u8]) -> Self {
        let gone = self.bytes.len() - part.len();
        Self { bytes: part, wire: self.wire.saturating_sub(gone) }
    }
}

/// Takes the layers of frames apart. It remembers fragments.
#[derive(Default)]
pub struct Layers {
    fragments: Fragments,
}

/// One frame on its way down.
pub(super) struct Descent<'s> {
    pub(super) fragments: &'s mut Fragments,
    pub(super) stamp: Stamp,
    pub(super) found: &'s mut dyn FnMut(&Segment<'_>),
    depth: usize,
    /// Inside an ICMP error.
    pub(super) quoted: bool,
}

/// `None` when a header is cut off or not what it should be: there is nothing below.
pub(super) type Down = Option<()>;

impl Layers {
    /// Gives `found` each TCP segment and UDP datagram of the frame, in the order they stand.
    pub fn frame(&mut self, frame: &Frame<'_>, found: &mut dyn FnMut(&Segment<'_>)) {
        let stamp = Stamp { time_ns: frame.time_ns, frame: frame.number };
        let view =
            View { bytes: frame.bytes, wire: (frame.length as usize).max(frame.bytes.len()) };
        let mut descent =
            Descent { fragments: &mut self.fragments, stamp, found, depth: 0, quoted: false };
        let _ends_somewhere = descent.content(frame.link.content(frame.bytes), view);
    }
}

impl Descent<'_> {
    /// What a link-layer header led to.
    fn content(&mut self, content: Content<'_>, view: View<'_>) -> Down {
        match content {
            Content::Ethernet(part) => self.ethernet(view.at(part)),
            Content::EtherType(kind, part) => self.ether_type(kind, view.at(part)),
            Content::Ip(part) => self.ip(view.at(part)),
            Content::Ppp(part) => self.ppp(view.at(part)),
            Content::Llc(part) => self.llc(view.at(part)),
            Content::Other => None,
        }
    }

    /// An IEEE 802.11 frame.
    pub(super) fn wireless(&mut self, view: View<'_>) -> Down {
        let content = wireless(view.bytes)?;
        self.deeper(|this| this.content(content, view))
    }

    /// One layer deeper, if that is not too deep.
    pub(super) fn deeper(&mut self, next: impl FnOnce(&mut Self) -> Down) -> Down {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let down = next(self);
        self.depth -= 1;
        down
    }
}

/// The address as the standard library has it.
pub fn ip_address(address: Address) -> IpAddr {
    IpAddr::from(address.bytes()).to_canonical()
}
