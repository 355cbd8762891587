//! From a link layer down to IP: EtherTypes, VLAN tags, LLC, PPP, MPLS and other headers between.

use detector_common::{
    packet::PacketBytes,
    wire::{Ethernet, MplsEntry, Pppoe, VlanTag, ethertype, ppp},
};

use super::{
    bytes::{array_at, u8_at, u16_at},
    layers::{Descent, Down, View},
};

impl Descent<'_> {
    pub(super) fn ethernet(&mut self, view: View<'_>) -> Down {
        let header: Ethernet = view.bytes.load(0)?;
        self.ether_type_or_length(header.ethertype.get(), view.skip(size_of::<Ethernet>())?)
    }

    fn ether_type_or_length(&mut self, kind: u16, view: View<'_>) -> Down {
        // IEEE 802.3 section 3.2.6: up to 1500 it is a length.
        if kind <= 1500 { self.llc(view.limit(kind.into())) } else { self.ether_type(kind, view) }
    }

    pub(super) fn ether_type(&mut self, kind: u16, view: View<'_>) -> Down {
        self.deeper(|this| match kind {
            ethertype::IPV4 | ethertype::IPV6 => this.ip(view),
            // Some have written service tags with 0x9200 and 0x9300, too.
            kind if ethertype::is_vlan(kind) || matches!(kind, 0x9200 | 0x9300) => {
                let tag: VlanTag = view.bytes.load(0)?;
                this.ether_type_or_length(tag.ethertype.get(), view.skip(size_of::<VlanTag>())?)
            }
            ethertype::MPLS | ethertype::MPLS_MULTICAST => this.mpls(view),
            ethertype::PPPOE_SESSION => {
                let header: Pppoe = view.bytes.load(0)?;
                this.ppp(view.skip(size_of::<Pppoe>())?.limit(header.length.get().into()))
            }
            ethertype::ETHERNET => this.ethernet(view),
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
            ppp::IPV4 | ppp::IPV6 => self.ip(rest),
            0x0281 | 0x0283 => self.mpls(rest),
            _ => None,
        }
    }

    /// MPLS (RFC 3032): nothing says what stands below the labels but its first half byte.
    pub(super) fn mpls(&mut self, view: View<'_>) -> Down {
        const MAX_LABELS: usize = 16;
        let mut rest = view;
        for _ in 0..MAX_LABELS {
            let entry: MplsEntry = rest.bytes.load(0)?;
            rest = rest.skip(size_of::<MplsEntry>())?;
            if entry.is_bottom() {
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
}
