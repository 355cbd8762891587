//! Packets built by etherparse, what they should say about themselves, and what etherparse's own
//! dissector says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use detector_common::{
    packet::{Address, Layer, Protocol},
    parse::{Facts, TunnelWord},
};
use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options,
    Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions,
    LinkExtSlice, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice, UdpHeader,
    VlanId,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// UDP ports that lead into tunnels, GTP-U and VXLAN, which have tests of their own.
pub(crate) const TUNNEL_PORTS: [u16; 2] = [2152, 4789];

/// A frame's VLAN tags.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Link {
    /// No link-layer header at all.
    None,
    /// No tag.
    Plain,
    /// 802.1Q.
    Tagged(u16),
    /// QinQ.
    DoubleTagged(u16, u16),
}

impl Link {
    /// How the parser is told.
    pub(crate) fn layer(self) -> Layer {
        match self {
            Self::None => Layer::Ip,
            Self::Plain | Self::Tagged(_) | Self::DoubleTagged(..) => Layer::Ethernet,
        }
    }

    fn vlan(self) -> [u16; 2] {
        match self {
            Self::None | Self::Plain => [0, 0],
            Self::Tagged(tag) => [tag, 0],
            Self::DoubleTagged(outer, inner) => [outer, inner],
        }
    }

    fn size(self) -> usize {
        match self {
            Self::None => 0,
            Self::Plain => 14,
            Self::Tagged(_) => 18,
            Self::DoubleTagged(..) => 22,
        }
    }
}

/// A transport header.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    /// TCP.
    Tcp(TcpHeader),
    /// UDP between these ports.
    Udp(u16, u16),
}

/// What to build.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Link layer.
    pub(crate) link: Link,
    /// IP.
    pub(crate) ip: IpHeaders,
    /// Transport.
    pub(crate) transport: Transport,
    /// Payload.
    pub(crate) payload: Vec<u8>,
}

impl Plan {
    /// A small UDP datagram over plain Ethernet.
    pub(crate) fn udp(ip: IpHeaders, ports: (u16, u16), payload: Vec<u8>) -> Self {
        Self { link: Link::Plain, ip, transport: Transport::Udp(ports.0, ports.1), payload }
    }

    /// The frame.
    pub(crate) fn build(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let id = |id: u16| VlanId::try_new(id).expect("twelve bits");
        let ip = self.ip.clone();
        let ip = match self.link {
            Link::None => PacketBuilder::ip(ip),
            Link::Plain => ethernet.ip(ip),
            Link::Tagged(tag) => ethernet.single_vlan(id(tag)).ip(ip),
            Link::DoubleTagged(outer, inner) => ethernet.double_vlan(id(outer), id(inner)).ip(ip),
        };
        let mut frame = Vec::new();
        match &self.transport {
            Transport::Tcp(tcp) => ip.tcp_header(tcp.clone()).write(&mut frame, &self.payload),
            Transport::Udp(from, to) => ip.udp(*from, *to).write(&mut frame, &self.payload),
        }
        .expect("a frame");
        frame
    }

    /// What the parser must say of [`Self::build`].
    pub(crate) fn facts(&self) -> Facts {
        let ends = match &self.ip {
            IpHeaders::Ipv4(ip, _) => (Address::v4(ip.source), Address::v4(ip.destination)),
            IpHeaders::Ipv6(ip, _) => (Address::v6(ip.source), Address::v6(ip.destination)),
        };
        let first_fragment = match &self.ip {
            IpHeaders::Ipv4(ip, _) => ip.more_fragments,
            IpHeaders::Ipv6(_, extensions) => {
                extensions.fragment.as_ref().is_some_and(|fragment| fragment.more_fragments)
            }
        };
        let (ports, protocol, tcp_flags, sequence, header) = match &self.transport {
            Transport::Tcp(tcp) => (
                (tcp.source_port, tcp.destination_port),
                Protocol::Tcp,
                tcp_flags(tcp),
                tcp.sequence_number,
                tcp.header_len(),
            ),
            Transport::Udp(from, to) => ((*from, *to), Protocol::Udp, 0, 0, UdpHeader::LEN),
        };
        Facts {
            source: ends.0,
            destination: ends.1,
            source_port: ports.0,
            destination_port: ports.1,
            protocol,
            tcp_flags,
            first_fragment,
            sequence,
            payload_offset: (self.link.size() + self.ip.header_len() + header) as u32,
            payload_length: self.payload.len() as u32,
            vlan: self.link.vlan(),
            tunnel: TunnelWord::NONE,
        }
    }
}

fn tcp_flags(tcp: &TcpHeader) -> u8 {
    let flags = [tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack, tcp.urg, tcp.ece, tcp.cwr];
    flags.iter().enumerate().fold(0, |bits, (bit, set)| bits | (u8::from(*set) << bit))
}

/// What etherparse's dissector says of a frame; `None` where it finds no transport.
pub(crate) fn dissect(frame: &[u8], layer: Layer) -> Option<Facts> {
    let sliced = match layer {
        Layer::Ethernet => SlicedPacket::from_ethernet(frame),
        Layer::Ip => SlicedPacket::from_ip(frame),
    }
    .ok()?;
    let (source, destination) = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            (Address::v4(ip.header().source()), Address::v4(ip.header().destination()))
        }
        NetSlice::Ipv6(ip) => {
            (Address::v6(ip.header().source()), Address::v6(ip.header().destination()))
        }
        NetSlice::Arp(_) => return None,
    };
    let (ports, protocol, flags, sequence, payload) = match sliced.transport? {
        TransportSlice::Tcp(tcp) => (
            (tcp.source_port(), tcp.destination_port()),
            Protocol::Tcp,
            tcp_flags(&tcp.to_header()),
            tcp.sequence_number(),
            tcp.payload(),
        ),
        TransportSlice::Udp(udp) => {
            ((udp.source_port(), udp.destination_port()), Protocol::Udp, 0, 0, udp.payload())
        }
        _ => return None,
    };
    let mut vlan = [0; 2];
    let tags = sliced.link_exts.iter().filter_map(|extension| match extension {
        LinkExtSlice::Vlan(tag) => Some(tag.vlan_identifier().value()),
        LinkExtSlice::Macsec(_) => None,
    });
    vlan.iter_mut().zip(tags).for_each(|(place, tag)| *place = tag);
    Some(Facts {
        source,
        destination,
        source_port: ports.0,
        destination_port: ports.1,
        protocol,
        tcp_flags: flags,
        first_fragment: false,
        sequence,
        payload_offset: (payload.as_ptr() as usize - frame.as_ptr() as usize) as u32,
        payload_length: payload.len() as u32,
        vlan,
        tunnel: TunnelWord::NONE,
    })
}

/// An IPv4 header without options.
pub(crate) fn ipv4() -> IpHeaders {
    ipv4_between([10, 45, 0, 2], [10, 46, 0, 1], &[])
}

/// An IPv6 header without extensions.
pub(crate) fn ipv6() -> IpHeaders {
    ipv6_between([0xfd; 16], [0xfe; 16], Ipv6Extensions::default())
}

fn ipv4_between(source: [u8; 4], destination: [u8; 4], options: &[u8]) -> IpHeaders {
    let mut header =
        Ipv4Header::new(0, 64, IpNumber::TCP, source, destination).expect("no payload yet");
    header.options = Ipv4Options::try_from(options).expect("words of four bytes");
    IpHeaders::Ipv4(header, Ipv4Extensions::default())
}

fn ipv6_between(source: [u8; 16], destination: [u8; 16], extensions: Ipv6Extensions) -> IpHeaders {
    let header = Ipv6Header { source, destination, hop_limit: 64, ..Ipv6Header::default() };
    IpHeaders::Ipv6(header, extensions)
}

/// The same headers as the first fragment of several.
pub(crate) fn first_fragment(ip: IpHeaders) -> IpHeaders {
    fragment(ip, 0, true)
}

/// The same headers as a fragment at `offset` units of eight bytes.
pub(crate) fn fragment(mut ip: IpHeaders, offset: u16, more: bool) -> IpHeaders {
    let offset = IpFragOffset::try_new(offset).expect("thirteen bits");
    match &mut ip {
        IpHeaders::Ipv4(header, _) => {
            header.fragment_offset = offset;
            header.more_fragments = more;
        }
        IpHeaders::Ipv6(_, extensions) => {
            extensions.fragment = Some(Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, 7));
        }
    }
    ip
}

fn raw_extension() -> impl Strategy<Value = Ipv6RawExtHeader> {
    (select(vec![6usize, 14, 22, 70]), any::<u8>()).prop_map(|(size, fill)| {
        Ipv6RawExtHeader::new_raw(IpNumber::UDP, &vec![fill; size]).expect("a size that exists")
    })
}

fn extensions() -> impl Strategy<Value = Ipv6Extensions> {
    let auth = select(vec![0usize, 4, 12, 16]).prop_map(|size| {
        IpAuthHeader::new(IpNumber::UDP, 1, 2, &vec![0xaa; size]).expect("words of four bytes")
    });
    (
        option::of(raw_extension()),
        option::of(raw_extension()),
        option::of((raw_extension(), option::of(raw_extension()))),
        option::of(any::<u32>()),
        option::of(auth),
    )
        .prop_map(|(hop_by_hop_options, destination_options, routing, fragment, auth)| {
            Ipv6Extensions {
                hop_by_hop_options,
                destination_options,
                routing: routing.map(|(routing, final_destination_options)| {
                    Ipv6RoutingExtensions { routing, final_destination_options }
                }),
                fragment: fragment.map(|id| {
                    Ipv6FragmentHeader::new(IpNumber::UDP, IpFragOffset::ZERO, false, id)
                }),
                auth,
            }
        })
}

/// Any IP header that is not a fragment.
pub(crate) fn any_ip() -> impl Strategy<Value = IpHeaders> {
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>(), 0usize..=10).prop_map(|(from, to, words)| {
        ipv4_between(from, to, &vec![1; words * 4]) // 1 is No Operation
    });
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>(), extensions())
        .prop_map(|(from, to, extensions)| ipv6_between(from, to, extensions));
    prop_oneof![v4, v6]
}

fn any_tcp() -> impl Strategy<Value = Transport> {
    let flags = any::<[bool; 8]>();
    (any::<(u16, u16, u32, u32)>(), flags, 0usize..=10).prop_map(|(numbers, flags, words)| {
        let mut tcp = TcpHeader::new(numbers.0, numbers.1, numbers.2, 512);
        tcp.acknowledgment_number = numbers.3;
        [tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack, tcp.urg, tcp.ece, tcp.cwr] = flags;
        tcp.set_options_raw(&vec![1; words * 4]).expect("options that fit");
        Transport::Tcp(tcp)
    })
}

fn any_udp() -> impl Strategy<Value = Transport> {
    let port = any::<u16>().prop_filter("no tunnel", |port| !TUNNEL_PORTS.contains(port));
    (any::<u16>(), port).prop_map(|(from, to)| Transport::Udp(from, to))
}

fn any_link() -> impl Strategy<Value = Link> {
    prop_oneof![
        Just(Link::None),
        Just(Link::Plain),
        (0u16..4096).prop_map(Link::Tagged),
        (0u16..4096, 0u16..4096).prop_map(|(outer, inner)| Link::DoubleTagged(outer, inner)),
    ]
}

/// Any packet that is not a fragment and not GTP-U.
pub(crate) fn any_plan() -> impl Strategy<Value = Plan> {
    let transport = prop_oneof![any_tcp(), any_udp()];
    (any_link(), any_ip(), transport, vec(any::<u8>(), 0..200))
        .prop_map(|(link, ip, transport, payload)| Plan { link, ip, transport, payload })
}

/// An address as the parser holds it.
pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => Address::v4(Ipv4Addr::octets(&ip)),
        IpAddr::V6(ip) => Address::v6(Ipv6Addr::octets(&ip)),
    }
}
