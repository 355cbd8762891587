//! Tunnels beside GTP-U: GRE (RFC 2784, RFC 2890), IP in IP, VXLAN (RFC 7348).

use std::net::IpAddr;

use super::Packet;

/// GRE's optional words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gre {
    /// A checksum field, which nobody looks at.
    pub checksum: bool,
    /// The key.
    pub key: Option<u32>,
    /// The sequence number.
    pub sequence: Option<u32>,
}

impl Gre {
    fn message(self, kind: u16, content: &[u8]) -> Vec<u8> {
        let mut flags = 0u16;
        let mut words = Vec::new();
        if self.checksum {
            flags |= 0x8000;
            words.extend([0; 4]);
        }
        if let Some(key) = self.key {
            flags |= 0x2000;
            words.extend(key.to_be_bytes());
        }
        if let Some(sequence) = self.sequence {
            flags |= 0x1000;
            words.extend(sequence.to_be_bytes());
        }
        [&flags.to_be_bytes()[..], &kind.to_be_bytes(), &words, content].concat()
    }
}

impl Packet {
    /// This packet in GRE between two addresses.
    pub fn in_gre(&self, from: IpAddr, to: IpAddr, gre: Gre) -> Self {
        let kind = if self.from.is_ipv4() { 0x0800 } else { 0x86dd };
        Self::raw(from, to, 47, gre.message(kind, &self.bytes()))
    }

    /// This packet's Ethernet frame in GRE.
    pub fn bridged_in_gre(&self, from: IpAddr, to: IpAddr, gre: Gre) -> Self {
        Self::raw(from, to, 47, gre.message(0x6558, &self.frame()))
    }

    /// This packet in another IP packet: 4in4, 6in4, 4in6 or 6in6.
    pub fn in_ip(&self, from: IpAddr, to: IpAddr) -> Self {
        Self::raw(from, to, if self.from.is_ipv4() { 4 } else { 41 }, self.bytes())
    }

    /// This packet's Ethernet frame in VXLAN.
    pub fn in_vxlan(&self, from: IpAddr, to: IpAddr, vni: u32) -> Self {
        let header = [[0x08, 0, 0, 0], (vni << 8).to_be_bytes()].concat();
        Self::udp((from, 50_000), (to, 4789), &[header, self.frame()].concat())
    }
}
