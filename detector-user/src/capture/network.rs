//! IP down to TCP and UDP: fragments, extension headers, and packets that ICMP errors quote.

use detector_common::{
    packet::{Address, PacketBytes},
    wire::{Ipv4, Ipv6, Tcp, Udp},
};

use super::{
    bytes::{array_at, u8_at, u16_at},
    fragment::Group,
    layers::{Descent, Down, View},
};
use crate::flow::{Endpoint, Segment, Transport as Kind, Wanted};

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

impl Descent<'_> {
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
            wanted: Wanted::default(),
        });
        Some(())
    }
}
