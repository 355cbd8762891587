//! IP down to TCP and UDP: fragments, extension headers, and packets that ICMP errors quote.

use detector_common::{
    packet::{Address, PacketBytes},
    wire::{Ipv4, Ipv6, Ipv6Extension, Ipv6Fragment, Tcp, Udp, ip_protocol as protocol},
};

use super::{
    bytes::u8_at,
    fragment::Group,
    layers::{Descent, Down, View},
};
use crate::flow::{Endpoint, Segment, Transport as Kind, Wanted};

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
        let length = header.header_length()?;
        let total = usize::from(header.total_length.get());
        if total != 0 && total < length {
            return None;
        }
        // A length of zero: the card cut the segments after the capture (TSO).
        let view = if total == 0 { view } else { view.limit(total) };
        let payload = view.skip(length)?;
        let ends = [Address::v4(header.source), Address::v4(header.destination)];
        let group = Group {
            source: ends[0],
            destination: ends[1],
            id: header.identification.get().into(),
            protocol: header.protocol,
        };
        let place = (header.fragment_offset(), header.more_fragments());
        self.whole(ends, header.protocol, group, place, payload)
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
            match next {
                protocol::FRAGMENT => return self.ipv6_fragment(ends, view),
                next if !protocol::is_extension(next) => return self.transport(ends, next, view),
                _ => {}
            }
            let header: Ipv6Extension = view.bytes.load(0)?;
            view = view.skip(header.size(next))?;
            next = header.next_header;
        }
        None
    }

    fn ipv6_fragment(&mut self, ends: [Address; 2], view: View<'_>) -> Down {
        let header: Ipv6Fragment = view.bytes.load(0)?;
        let id = header.identification.get();
        let group = Group { source: ends[0], destination: ends[1], id, protocol: 0 };
        let place = (header.start.fragment_offset(), header.start.more_fragments());
        self.whole(
            ends,
            header.start.next_header,
            group,
            place,
            view.skip(size_of::<Ipv6Fragment>())?,
        )
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
        let length = header.header_length()?;
        let kind = Kind::Tcp {
            sequence: header.sequence.get(),
            acknowledgement: header.acknowledgement.get(),
            flags: header.flags,
        };
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
