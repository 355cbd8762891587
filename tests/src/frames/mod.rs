//! Packets to order, from the inside out: a transport in an [`Packet`], perhaps cut into
//! fragments, perhaps inside GTP-U, then as raw IP or as an Ethernet frame with or without tags.
//!
//! Lengths and checksums are right unless a test spoils the bytes afterwards.

mod gtpu;
pub mod pcap;
mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, SingleVlanHeader, TcpHeader, UdpHeader,
    VlanId,
};

pub use self::{
    gtpu::{Extension, Gtpu},
    tunnel::Gre,
};

/// The MAC addresses of every frame made here: destination, source.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]];

/// What a TCP segment is besides its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number.
    pub sequence: u32,
    /// Opens the connection.
    pub syn: bool,
    /// Acknowledges.
    pub ack: bool,
    /// Closes this direction.
    pub fin: bool,
    /// Aborts.
    pub rst: bool,
}

impl Tcp {
    /// The first segment of a connection.
    pub const SYN: Self = Self { sequence: 1_000, syn: true, ack: false, fin: false, rst: false };

    /// A segment with data, at this sequence number.
    pub const fn data(sequence: u32) -> Self {
        Self { sequence, syn: false, ack: true, fin: false, rst: false }
    }
}

/// One IPv6 extension header, and what stands in it after its first two bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6Extension {
    /// Its type: 0 hop-by-hop, 43 routing, 60 destination options, 51 AH, 135 mobility.
    pub kind: u8,
    /// The content: 6 bytes, 14 bytes, and so on in steps of 8.
    pub content: Vec<u8>,
}

/// One IP packet.
#[derive(Clone, Debug)]
pub struct Packet {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    /// Transport header and payload, or the piece of it that this fragment has.
    body: Vec<u8>,
    ipv4_options: Vec<u8>,
    ipv6_extensions: Vec<Ipv6Extension>,
    identification: u16,
    fragment: Option<Fragment>,
}

#[derive(Clone, Copy, Debug)]
struct Fragment {
    /// In units of 8 bytes.
    offset: u16,
    more: bool,
}

impl Packet {
    /// Any transport, as bytes.
    ///
    /// # Panics
    /// When one address is IPv4 and the other IPv6.
    pub fn raw(from: IpAddr, to: IpAddr, protocol: u8, body: Vec<u8>) -> Self {
        assert_eq!(from.is_ipv4(), to.is_ipv4(), "both addresses must be of one version");
        Self {
            from,
            to,
            protocol,
            body,
            ipv4_options: Vec::new(),
            ipv6_extensions: Vec::new(),
            identification: 1,
            fragment: None,
        }
    }

    /// A TCP segment between two `(address, port)`.
    pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), tcp: Tcp, payload: &[u8]) -> Self {
        let mut header = TcpHeader::new(from.1, to.1, tcp.sequence, 64_240);
        (header.syn, header.ack) = (tcp.syn, tcp.ack);
        (header.fin, header.rst) = (tcp.fin, tcp.rst);
        header.psh = !payload.is_empty();
        header.checksum = match versions(from.0, to.0) {
            Versions::V4(from, to) => {
                header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
            }
            Versions::V6(from, to) => {
                header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
            }
        }
        .expect("a payload that fits into a packet");
        Self::raw(from.0, to.0, 6, [&header.to_bytes(), payload].concat())
    }

    /// A UDP datagram between two `(address, port)`.
    pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Self {
        let length = u16::try_from(8 + payload.len()).expect("a payload that fits into a datagram");
        let mut header =
            UdpHeader { source_port: from.1, destination_port: to.1, length, checksum: 0 };
        header.checksum = match versions(from.0, to.0) {
            Versions::V4(from, to) => {
                header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
            }
            Versions::V6(from, to) => {
                header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
            }
        }
        .expect("a payload that fits into a packet");
        Self::raw(from.0, to.0, 17, [&header.to_bytes()[..], payload].concat())
    }

    /// With IPv4 options (0 to 40 bytes, a multiple of 4).
    pub fn ipv4_options(mut self, options: &[u8]) -> Self {
        self.ipv4_options = options.to_vec();
        self
    }

    /// With IPv6 extension headers, in this order.
    pub fn ipv6_extensions(mut self, extensions: Vec<Ipv6Extension>) -> Self {
        self.ipv6_extensions = extensions;
        self
    }

    /// With this IP identification.
    pub fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// The same packet cut into fragments of so many bytes (a multiple of 8).
    ///
    /// # Panics
    /// When the size is 0 or no multiple of 8.
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        assert!(size > 0 && size.is_multiple_of(8), "fragments have a multiple of 8 bytes");
        let pieces = self.body.chunks(size);
        let last = pieces.len() - 1;
        let cut = |(index, piece): (usize, &[u8])| {
            let offset = u16::try_from(index * size / 8).expect("a packet below 64 KiB");
            let fragment = Some(Fragment { offset, more: index < last });
            Self { body: piece.to_vec(), fragment, ..self.clone() }
        };
        pieces.enumerate().map(cut).collect()
    }

    /// As an L3 device (tun, GTP) hands it out.
    pub fn bytes(&self) -> Vec<u8> {
        match versions(self.from, self.to) {
            Versions::V4(from, to) => self.ipv4(from, to),
            Versions::V6(from, to) => self.ipv6(from, to),
        }
    }

    /// As an Ethernet frame.
    pub fn frame(&self) -> Vec<u8> {
        self.tagged_frame(&[])
    }

    /// As an Ethernet frame with VLAN tags, outermost first; two tags are QinQ (802.1ad, 802.1Q).
    pub fn tagged_frame(&self, vlans: &[u16]) -> Vec<u8> {
        let network = if self.from.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let outer = match vlans.len() {
            0 => network,
            1 => EtherType::VLAN_TAGGED_FRAME,
            _ => EtherType::PROVIDER_BRIDGING,
        };
        let [destination, source] = MACS;
        let mut frame =
            Ethernet2Header { source, destination, ether_type: outer }.to_bytes().to_vec();
        for (index, &vlan) in vlans.iter().enumerate() {
            let is_last = index + 1 == vlans.len();
            let tag = SingleVlanHeader {
                vlan_id: VlanId::try_new(vlan).expect("a VLAN id below 4096"),
                ether_type: if is_last { network } else { EtherType::VLAN_TAGGED_FRAME },
                ..Default::default()
            };
            frame.extend(tag.to_bytes());
        }
        frame.extend(self.bytes());
        frame
    }

    fn ipv4(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let payload = u16::try_from(self.body.len()).expect("a packet below 64 KiB");
        let protocol = IpNumber(self.protocol);
        let mut header = Ipv4Header::new(payload, 64, protocol, from.octets(), to.octets())
            .expect("a packet below 64 KiB");
        header.options =
            Ipv4Options::try_from(&self.ipv4_options[..]).expect("0 to 40 bytes, a multiple of 4");
        header.total_len += u16::from(header.options.len_u8());
        header.identification = self.identification;
        header.dont_fragment = self.fragment.is_none();
        if let Some(Fragment { offset, more }) = self.fragment {
            header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
            header.more_fragments = more;
        }
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes(), &self.body[..]].concat()
    }

    fn ipv6(&self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        // Written from the last header to the first, because each names the next.
        let mut next = IpNumber(self.protocol);
        let mut rest = self.body.clone();
        if let Some(Fragment { offset, more }) = self.fragment {
            let offset = IpFragOffset::try_new(offset).expect("13 bits");
            let header = Ipv6FragmentHeader::new(next, offset, more, self.identification.into());
            rest.splice(..0, header.to_bytes());
            next = IpNumber::IPV6_FRAGMENTATION_HEADER;
        }
        for extension in self.ipv6_extensions.iter().rev() {
            let header = Ipv6RawExtHeader::new_raw(next, &extension.content)
                .expect("6 bytes of content, or 8 more, or 16 more, ...");
            rest.splice(..0, header.to_bytes());
            next = IpNumber(extension.kind);
        }
        let header = Ipv6Header {
            payload_length: u16::try_from(rest.len()).expect("a packet below 64 KiB"),
            next_header: next,
            hop_limit: 64,
            source: from.octets(),
            destination: to.octets(),
            ..Default::default()
        };
        rest.splice(..0, header.to_bytes());
        rest
    }
}

enum Versions {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn versions(from: IpAddr, to: IpAddr) -> Versions {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Versions::V4(from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => Versions::V6(from, to),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("both addresses must be of one version: {from} and {to}")
        }
    }
}

/// An HTTP/1.1 request as a phone's browser would begin it.
pub fn http_request(method: &str, path: &str, host: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: testbed\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A TLS 1.2 ClientHello with a server name and nothing else (RFC 5246 section 7.4.1.2).
pub fn client_hello(name: &str) -> Vec<u8> {
    fn sized(bytes: Vec<u8>) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()
    }
    let name = [vec![0], sized(name.as_bytes().to_vec())].concat();
    let extension = [vec![0, 0], sized(sized(name))].concat();
    let hello = [
        vec![3, 3],
        vec![7; 32],
        vec![0],
        sized(vec![0xc0, 0x2f, 0x13, 0x01]),
        vec![1, 0],
        sized(extension),
    ]
    .concat();
    let handshake = [vec![1, 0], sized(hello)].concat();
    [vec![22, 3, 1], sized(handshake)].concat()
}

#[cfg(test)]
mod tests;
