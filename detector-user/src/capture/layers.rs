//! From a frame down to its innermost TCP segments and UDP datagrams.
//!
//! A capture holds more than the hooks see: other link layers, and whole fragment groups, which can
//! be put together here because memory is no matter. The headers are those of
//! [`detector_common::wire`]; rules on a capture are judged by [`detector_common::parse`] all the same.

use std::net::IpAddr;

use detector_common::{
    packet::{Address, PacketBytes},
    wire::{Ipv4, Ipv6, Tcp, Udp},
};

use super::{
    bytes::{array_at, u8_at, u16_at},
    file::Frame,
    fragment::{Fragments, Group},
    link::{Content, wireless},
};
use crate::flow::{Endpoint, Segment, Stamp, Transport as Kind};

/// Headers of one kind inside another. Deeper nesting is an attack or a loop.
const MAX_DEPTH: usize = 16;

/// IP protocol numbers (IANA) that lead further down.
mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ICMP: u8 = 1;
    pub(super) const IPV4: u8 = 4;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const IPV6: u8 = 41;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const GRE: u8 = 47;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const IPIP: u8 = 94;
    pub(super) const ETHERIP: u8 = 97;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const MPLS: u8 = 137;
    pub(super) const ETHERNET: u8 = 143;
}

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
    fragments: &'s mut Fragments,
    stamp: Stamp,
    found: &'s mut dyn FnMut(&Segment<'_>),
    depth: usize,
    /// Inside an ICMP error.
    quoted: bool,
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
    fn deeper(&mut self, next: impl FnOnce(&mut Self) -> Down) -> Down {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let down = next(self);
        self.depth -= 1;
        down
    }

    pub(super) fn ethernet(&mut self, view: View<'_>) -> Down {
        let kind = u16_at(view.bytes, 12)?;
        let rest = view.skip(14)?;
        self.ether_type_or_length(kind, rest)
    }

    fn ether_type_or_length(&mut self, kind: u16, view: View<'_>) -> Down {
        // IEEE 802.3 section 3.2.6: up to 1500 it is a length.
        if kind <= 1500 { self.llc(view.limit(kind.into())) } else { self.ether_type(kind, view) }
    }

    pub(super) fn ether_type(&mut self, kind: u16, view: View<'_>) -> Down {
        self.deeper(|this| match kind {
            0x0800 | 0x86dd => this.ip(view),
            // VLAN tags: control, EtherType.
            0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => {
                this.ether_type_or_length(u16_at(view.bytes, 2)?, view.skip(4)?)
            }
            0x8847 | 0x8848 => this.mpls(view),
            // PPPoE session (RFC 2516): version, code, session, length.
            0x8864 => {
                let length = u16_at(view.bytes, 4)?;
                this.ppp(view.skip(6)?.limit(length.into()))
            }
            0x6558 => this.ethernet(view),
            // Provider backbone bridging (IEEE 802.1ah): the service tag, then the customer's frame.
            0x88e7 => this.ethernet(view.skip(4)?),
            0x880b => this.ppp(view),
            // Cisco's security group tag before the real EtherType.
            0x8909 => this.ether_type(u16_at(view.bytes, 6)?, view.skip(8)?),
            // Network service header (RFC 8300).
            0x894f => this.service_header(view),
            _ => None,
        })
    }

    pub(super) fn service_header(&mut self, view: View<'_>) -> Down {
        let words = usize::from(u8_at(view.bytes, 1)? & 0x3f);
        let next = u8_at(view.bytes, 3)?;
        let rest = view.skip(words * 4)?;
        match next {
            1 | 2 => self.ip(rest),
            3 => self.ethernet(rest),
            5 => self.mpls(rest),
            _ => None,
        }
    }

    /// IEEE 802.2: SNAP with an EtherType, or the access point of IP.
    pub(super) fn llc(&mut self, view: View<'_>) -> Down {
        match array_at::<3>(view.bytes, 0)? {
            [0xaa, 0xaa, 0x03] => self.ether_type(u16_at(view.bytes, 6)?, view.skip(8)?),
            [0x06, 0x06, 0x03] => self.ip(view.skip(3)?),
            // ISO network layer with a NLPID of IP (RFC 1490), or PPP.
            [0xfe, 0xfe, 0x03] => match u8_at(view.bytes, 3)? {
                0xcc | 0x8e => self.ip(view.skip(4)?),
                0xcf => self.ppp(view.skip(4)?),
                _ => None,
            },
            _ => None,
        }
    }

    /// PPP (RFC 1661), with or without the HDLC address and a compressed protocol field.
    pub(super) fn ppp(&mut self, view: View<'_>) -> Down {
        let view = match array_at::<2>(view.bytes, 0)? {
            [0xff, 0x03] => view.skip(2)?,
            // Cisco HDLC in its place.
            [0x0f | 0x8f, 0x00] => {
                return self.ether_type(u16_at(view.bytes, 2)?, view.skip(4)?);
            }
            _ => view,
        };
        let first = u8_at(view.bytes, 0)?;
        let (kind, rest) = if first & 1 == 1 {
            (u16::from(first), view.skip(1)?)
        } else {
            (u16_at(view.bytes, 0)?, view.skip(2)?)
        };
        match kind {
            0x0021 | 0x0057 => self.ip(rest),
            0x0281 | 0x0283 => self.mpls(rest),
            _ => None,
        }
    }

    /// MPLS (RFC 3032): nothing says what stands below the labels but its first half byte.
    pub(super) fn mpls(&mut self, view: View<'_>) -> Down {
        const BOTTOM: u8 = 1;
        const MAX_LABELS: usize = 16;
        let mut rest = view;
        for _ in 0..MAX_LABELS {
            let last = u8_at(rest.bytes, 2)? & BOTTOM != 0;
            rest = rest.skip(4)?;
            if last {
                return self.deeper(|this| match u8_at(rest.bytes, 0)? >> 4 {
                    4 | 6 => this.ip(rest),
                    // A pseudowire's control word (RFC 4385), then Ethernet.
                    0 => this.ethernet(rest.skip(4)?),
                    _ => this.ethernet(rest),
                });
            }
        }
        None
    }

    /// IPv4 or IPv6, as the version says.
    pub(super) fn ip(&mut self, view: View<'_>) -> Down {
        self.deeper(|this| match u8_at(view.bytes, 0)? >> 4 {
            4 => this.ipv4(view),
            6 => this.ipv6(view),
            _ => None,
        })
    }

    fn ipv4(&mut self, view: View<'_>) -> Down {
        let header: Ipv4 = view.bytes.load(0)?;
        let length = usize::from(header.version_ihl & 0x0f) * 4;
        let total = usize::from(header.total_length.get());
        if length < size_of::<Ipv4>() || (total != 0 && total < length) {
            return None;
        }
        // A length of zero: the card cut the segments after the capture (TSO).
        let view = if total == 0 { view } else { view.limit(total) };
        let payload = view.skip(length)?;
        let ends = [Address::v4(header.source), Address::v4(header.destination)];
        let fragment = header.fragment.get();
        let (offset, more) = (usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0);
        let group = Group {
            source: ends[0],
            destination: ends[1],
            id: header.identification.get().into(),
            protocol: header.protocol,
        };
        self.whole(ends, header.protocol, group, (offset, more), payload)
    }

    fn ipv6(&mut self, view: View<'_>) -> Down {
        let header: Ipv6 = view.bytes.load(0)?;
        let length = usize::from(header.payload_length.get());
        let payload = view.skip(size_of::<Ipv6>())?;
        // Zero: a jumbogram (RFC 2675), or segments that the card cut after the capture.
        let payload = if length == 0 { payload } else { payload.limit(length) };
        let ends = [Address::v6(header.source), Address::v6(header.destination)];
        self.extensions(ends, header.next_header, payload)
    }

    /// IPv6 extension headers (RFC 8200 section 4).
    fn extensions(&mut self, ends: [Address; 2], mut next: u8, mut view: View<'_>) -> Down {
        const MAX_EXTENSIONS: usize = 64;
        for _ in 0..MAX_EXTENSIONS {
            let size = match next {
                protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::DESTINATION
                | protocol::MOBILITY => (usize::from(u8_at(view.bytes, 1)?) + 1) * 8,
                protocol::AUTHENTICATION => (usize::from(u8_at(view.bytes, 1)?) + 2) * 4,
                protocol::FRAGMENT => return self.ipv6_fragment(ends, view),
                _ => return self.transport(ends, next, view),
            };
            next = u8_at(view.bytes, 0)?;
            view = view.skip(size)?;
        }
        None
    }

    fn ipv6_fragment(&mut self, ends: [Address; 2], view: View<'_>) -> Down {
        let next = u8_at(view.bytes, 0)?;
        let field = u16_at(view.bytes, 2)?;
        let id = u32::from_be_bytes(array_at(view.bytes, 4)?);
        let group = Group { source: ends[0], destination: ends[1], id, protocol: 0 };
        let place = (usize::from(field & 0xfff8), field & 1 != 0);
        self.whole(ends, next, group, place, view.skip(8)?)
    }

    /// Goes on with the payload of an IP packet once it is whole.
    fn whole(
        &mut self,
        ends: [Address; 2],
        next: u8,
        group: Group,
        (offset, more): (usize, bool),
        payload: View<'_>,
    ) -> Down {
        if offset == 0 && !more {
            return self.extensions(ends, next, payload);
        }
        if payload.bytes.len() < payload.wire {
            // Cut by the capture: it can never be whole, but the first one still has its start.
            return if offset == 0 { self.extensions(ends, next, payload) } else { None };
        }
        let datagram = self.fragments.add(group, offset, more, payload.bytes)?;
        let view = View { bytes: &datagram, wire: datagram.len() };
        self.deeper(|this| this.extensions(ends, next, view))
    }

    fn transport(&mut self, ends: [Address; 2], next: u8, view: View<'_>) -> Down {
        match next {
            protocol::TCP => self.tcp(ends, view),
            protocol::UDP => self.udp(ends, view),
            protocol::IPV4 | protocol::IPV6 | protocol::IPIP => self.ip(view),
            protocol::GRE => self.deeper(|this| this.gre(view)),
            protocol::ETHERIP => self.deeper(|this| this.ethernet(view.skip(2)?)),
            protocol::ETHERNET => self.deeper(|this| this.ethernet(view)),
            protocol::MPLS => self.mpls(view),
            protocol::ICMP => self.icmp(view, &[3, 4, 5, 11, 12]),
            protocol::ICMPV6 => self.icmp(view, &[1, 2, 3, 4]),
            _ => None,
        }
    }

    /// An ICMP error quotes the packet that caused it (RFC 792; RFC 4443 section 2.4).
    fn icmp(&mut self, view: View<'_>, errors: &[u8]) -> Down {
        if self.quoted || !errors.contains(&u8_at(view.bytes, 0)?) {
            return None;
        }
        self.quoted = true;
        let down = view.skip(8).and_then(|quote| self.ip(quote));
        self.quoted = false;
        down
    }

    fn tcp(&mut self, ends: [Address; 2], view: View<'_>) -> Down {
        let header: Tcp = view.bytes.load(0)?;
        let length = usize::from(header.data_offset >> 4) * 4;
        if length < size_of::<Tcp>() {
            return None;
        }
        let acknowledgement = u32::from_be_bytes(array_at(view.bytes, 8)?);
        let kind =
            Kind::Tcp { sequence: header.sequence.get(), acknowledgement, flags: header.flags };
        // Options that the capture cut off: there is no payload, but the flags count.
        let payload = view
            .skip(length)
            .unwrap_or(View { bytes: &[], wire: view.wire.saturating_sub(length) });
        let ports = [header.source.get(), header.destination.get()];
        self.give(ends, ports, kind, payload)
    }

    fn udp(&mut self, ends: [Address; 2], view: View<'_>) -> Down {
        let header: Udp = view.bytes.load(0)?;
        let ports = [header.source.get(), header.destination.get()];
        let length = usize::from(header.length.get());
        let payload = view.skip(size_of::<Udp>())?;
        let payload = match length.checked_sub(size_of::<Udp>()) {
            Some(length) => payload.limit(length),
            // Zero in a jumbogram (RFC 2675 section 4); otherwise a lie.
            None if length == 0 => payload,
            None => return None,
        };
        if self.deeper(|this| this.udp_tunnel(ports, payload)).is_some() {
            return Some(());
        }
        self.give(ends, ports, Kind::Udp, payload)
    }

    fn give(&mut self, ends: [Address; 2], ports: [u16; 2], kind: Kind, payload: View<'_>) -> Down {
        (self.found)(&Segment {
            source: Endpoint { address: ends[0], port: ports[0] },
            destination: Endpoint { address: ends[1], port: ports[1] },
            transport: kind,
            payload: payload.bytes,
            length: payload.wire as u32,
            quoted: self.quoted,
            stamp: self.stamp,
        });
        Some(())
    }
}

/// The address as the standard library has it.
pub fn ip_address(address: Address) -> IpAddr {
    IpAddr::from(address.bytes()).to_canonical()
}
