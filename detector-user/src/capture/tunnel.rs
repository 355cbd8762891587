//! Tunnels over IP and UDP: where the inner packet starts.

use detector_common::{
    packet::{Layer, PacketBytes},
    parse::gtpu::{self, Message},
    wire::{Gre, Vxlan, port},
};

use super::{
    bytes::{array_at, u8_at, u16_at},
    layers::{Descent, Down, View},
};

impl Descent<'_> {
    /// A tunnel that is known by its UDP port; `None` if it is none, or carries no packet.
    pub(super) fn udp_tunnel(&mut self, ports: [u16; 2], view: View<'_>) -> Down {
        for port in [ports[0].min(ports[1]), ports[0].max(ports[1])] {
            let down = match port {
                port::GTPU => self.gtp(view),
                port::VXLAN => self.ethernet(view.skip(size_of::<Vxlan>())?),
                4790 => self.vxlan_gpe(view),
                6081 => self.geneve(view),
                3544 => self.teredo(view),
                1701 => self.l2tp(view),
                // LISP data (RFC 9300): flags, nonce, instance.
                4341 => self.ip(view.skip(8)?),
                5247 => self.capwap(view),
                4754 => self.gre(view),
                5072 => self.ayiya(view),
                6635 => self.mpls(view),
                _ => continue,
            };
            if down.is_some() {
                return down;
            }
        }
        None
    }

    /// GRE (RFC 2784, 2890; version 1 of PPTP, RFC 2637), and ERSPAN in it.
    pub(super) fn gre(&mut self, view: View<'_>) -> Down {
        let header: Gre = view.bytes.load(0)?;
        let rest = view.skip(header.header_length())?;
        match header.protocol.get() {
            0x88be if header.has_sequence() => self.ethernet(rest.skip(8)?),
            0x88be => self.ethernet(rest),
            0x22eb => {
                // ERSPAN III: twelve bytes, eight more if the last bit says so.
                let more = usize::from(u8_at(rest.bytes, 11)? & 1) * 8;
                self.ethernet(rest.skip(12 + more)?)
            }
            // WCCP: a redirect header, unless the packet starts at once.
            0x883e => {
                let direct = u8_at(rest.bytes, 0)? >> 4 == 4;
                self.ip(if direct { rest } else { rest.skip(4)? })
            }
            // Aruba's access points send IEEE 802.11 frames.
            kind @ 0x8200..=0x83f0 if kind & 0xf == 0 => self.wireless(rest),
            kind => self.ether_type(kind, rest),
        }
    }

    /// GTP-U (TS 29.281 section 5): the user's packet of a T-PDU.
    fn gtp(&mut self, view: View<'_>) -> Down {
        const MAX_EXTENSIONS: usize = 64;
        let message = gtpu::message::<[u8], MAX_EXTENSIONS>(view.bytes, 0, view.wire).ok()?;
        let Message::UserPacket { layer, start, .. } = message else { return None };
        let rest = view.skip(start)?;
        match layer {
            Layer::Ethernet => self.ethernet(rest),
            Layer::Ip => self.session_data(rest),
        }
    }

    /// The payload of a PDU session that is not plainly Ethernet.
    fn session_data(&mut self, view: View<'_>) -> Down {
        match u8_at(view.bytes, 0)? >> 4 {
            4 | 6 => self.ip(view),
            _ if view.bytes.starts_with(&[0xff, 0x03]) => self.ppp(view),
            _ => self.ethernet(view),
        }
    }

    /// CAPWAP data (RFC 5415 section 4.3): what an access point sends to its controller, IEEE 802.11
    /// frames or Ethernet. Fragments of its own are left.
    fn capwap(&mut self, view: View<'_>) -> Down {
        const NATIVE: u8 = 0x01;
        const FRAGMENT_OR_KEEP_ALIVE: u8 = 0x88;
        const IEEE_802_11: u8 = 1;
        let [preamble, length, binding, flags] = array_at::<4>(view.bytes, 0)?;
        // Version 0; type 1 is DTLS.
        if preamble != 0 || flags & FRAGMENT_OR_KEEP_ALIVE != 0 {
            return None;
        }
        let rest = view.skip(usize::from(length >> 3) * 4)?;
        match binding & NATIVE {
            0 => self.ethernet(rest),
            _ if binding >> 1 & 0x1f == IEEE_802_11 => self.wireless(rest),
            _ => None,
        }
    }

    /// VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe): the next protocol stands in the fourth byte.
    fn vxlan_gpe(&mut self, view: View<'_>) -> Down {
        let rest = view.skip(8)?;
        match u8_at(view.bytes, 3)? {
            1 | 2 => self.ip(rest),
            3 => self.ethernet(rest),
            4 => self.service_header(rest),
            5 => self.mpls(rest),
            _ => None,
        }
    }

    /// GENEVE (RFC 8926 section 3.4): options in words of four bytes, then an EtherType.
    fn geneve(&mut self, view: View<'_>) -> Down {
        let options = usize::from(u8_at(view.bytes, 0)? & 0x3f) * 4;
        let kind = u16_at(view.bytes, 2)?;
        self.ether_type(kind, view.skip(8 + options)?)
    }

    /// Teredo (RFC 4380 section 5.1.1): authentication and origin indication before IPv6.
    fn teredo(&mut self, view: View<'_>) -> Down {
        let mut rest = view;
        if rest.bytes.starts_with(&[0, 1]) {
            let [id, secret] = array_at::<2>(rest.bytes, 2)?;
            rest = rest.skip(13 + usize::from(id) + usize::from(secret))?;
        }
        if rest.bytes.starts_with(&[0, 0]) {
            rest = rest.skip(8)?;
        }
        if u8_at(rest.bytes, 0)? >> 4 != 6 {
            return None;
        }
        self.ip(rest)
    }

    /// AYIYA (draft-massar-v6ops-ayiya): identity and signature of lengths that the header says.
    fn ayiya(&mut self, view: View<'_>) -> Down {
        let [lengths, signature, _, next] = array_at::<4>(view.bytes, 0)?;
        let identity = 1_usize << (lengths >> 4);
        let rest = view.skip(8 + identity + usize::from(signature >> 4) * 4)?;
        match next {
            4 | 41 => self.ip(rest),
            _ => None,
        }
    }

    /// L2TP version 2 (RFC 2661 section 3.1), data messages: PPP.
    fn l2tp(&mut self, view: View<'_>) -> Down {
        let flags = u16_at(view.bytes, 0)?;
        let set = |bit: u16| flags & bit != 0;
        const CONTROL: u16 = 0x8000;
        if set(CONTROL) || flags & 0x000f != 2 {
            return None;
        }
        let mut header = 6;
        header += if set(0x4000) { 2 } else { 0 }; // length
        header += if set(0x0800) { 4 } else { 0 }; // sequence numbers
        if set(0x0200) {
            header += 2 + usize::from(u16_at(view.bytes, header)?); // offset and its padding
        }
        self.ppp(view.skip(header)?)
    }
}
