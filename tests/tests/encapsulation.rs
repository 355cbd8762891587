//! Every way in which a request may be wrapped reaches the rule, at every hook, in kernel and
//! software alike, with the user and the application of the innermost packet.

mod common;

use std::{cell::Cell, io::Write as _, net::IpAddr, time::Duration};

use aya::programs::{SchedClassifier, TcAttachType};
use common::{kernel::Hook, pair::Pair, rules};
use detector_common::{
    counter::Counter,
    event::{FLAG_QFI, FLAG_TUNNEL, RecordHeader},
    packet::{Address, Protocol},
};
use detector_user::{
    rules::{
        compile::compile,
        model::{RuleSet, Signature},
    },
    source::kernel::{Kernel, KernelLimits},
};
use testbed::{
    frames::{Extension, Gre, Gtpu, Ipv6Extension, Packet, Tcp, http_request},
    netns::{Netns, veth},
};
use zerocopy::FromBytes;

const UE: &str = "10.60.0.2";
const APP: &str = "10.45.0.10";
const UE6: &str = "fd00:60::2";
const APP6: &str = "fd00:45::10";
const HOOKS: [Hook; 3] = [Hook::Xdp, Hook::XdpFrags, Hook::Tc];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The two ends of tunnels.
fn n3() -> (IpAddr, IpAddr) {
    (ip("172.16.0.1"), ip("172.16.0.2"))
}

fn n3_v6() -> (IpAddr, IpAddr) {
    (ip("fd00:3::1"), ip("fd00:3::2"))
}

fn request(body: usize) -> Vec<u8> {
    http_request("POST", "/api/buttons/buy", "shop", &"x".repeat(body))
}

fn address(text: &str) -> Address {
    match ip(text) {
        IpAddr::V4(ip) => Address::v4(ip.octets()),
        IpAddr::V6(ip) => Address::v6(ip.octets()),
    }
}

/// Programs with the software classifier beside each, and requests that they have not seen.
struct Bed {
    pairs: Vec<Pair>,
    sequence: Cell<u32>,
}

impl Bed {
    fn new() -> Self {
        Self::at(&HOOKS)
    }

    fn at(hooks: &[Hook]) -> Self {
        Self { pairs: hooks.iter().copied().map(Pair::new).collect(), sequence: Cell::new(0) }
    }

    /// A request to buy over IPv4.
    fn buy(&self) -> Packet {
        self.segment(UE, APP)
    }

    /// A request to buy over IPv6.
    fn buy6(&self) -> Packet {
        self.segment(UE6, APP6)
    }

    fn segment(&self, from: &str, to: &str) -> Packet {
        self.sequence.set(self.sequence.get() + 1_000);
        let tcp = Tcp::data(self.sequence.get());
        Packet::tcp((ip(from), 40_000), (ip(to), 80), tcp, &request(0))
    }

    /// Every program and the software say that the user has bought, in the same words.
    fn bought(&mut self, frame: &[u8]) -> RecordHeader {
        let mut records = self.pairs.iter_mut().map(|pair| bought(pair, frame));
        let first = records.next().expect("a program");
        records.for_each(|record| assert_eq!(record, first));
        first
    }

    /// Nothing matches, and the packet is counted for this reason.
    fn counted(&mut self, frame: &[u8], reason: Counter) {
        for pair in &mut self.pairs {
            let before = pair.software.counter(reason);
            assert_eq!(pair.send(frame), None);
            assert_eq!(pair.software.counter(reason), before + 1, "{}", reason.name());
            pair.compare_memory();
        }
    }

    /// IPv4 and IPv6 in tunnels over both.
    fn over_both(&mut self, wrap: impl Fn(&Packet, IpAddr, IpAddr) -> Packet) {
        for (from, to) in [n3(), n3_v6()] {
            self.bought(&wrap(&self.buy(), from, to).frame());
            self.bought(&wrap(&self.buy6(), from, to).frame());
        }
    }
}

/// The record of one program and the software.
fn bought(pair: &mut Pair, frame: &[u8]) -> RecordHeader {
    let record = pair.send(frame).unwrap_or_else(|| panic!("no record: {frame:02x?}"));
    let ends = (record.flow.ue, record.flow.application_address);
    let v4 = (address(UE), address(APP));
    assert!(ends == v4 || ends == (address(UE6), address(APP6)), "{ends:x?}");
    assert_eq!((record.flow.ue_port, record.flow.application_port), (40_000, 80));
    assert!(record.rules[..usize::from(record.rule_count)].contains(&0), "{record:?}");
    record
}

#[test]
fn qinq() {
    testbed::need_root!();
    let mut bed = Bed::new();
    assert_eq!(bed.bought(&bed.buy().tagged_frame(&[5])).vlan, [5, 0, 0]);
    assert_eq!(bed.bought(&bed.buy6().tagged_frame(&[4095, 1])).vlan, [4095, 1, 0]);
    bed.counted(&bed.buy().tagged_frame(&[1, 2, 3]), Counter::TooManyVlanTags);
}

#[test]
fn ipv4_and_ipv6_fragments() {
    testbed::need_root!();
    let mut bed = Bed::new();
    let (from, to) = n3();
    let tunnel = Gtpu::with_qfi(7, 9);
    for request in [Bed::buy, Bed::buy6] {
        let [first, later] = &request(&bed).fragments(80)[..] else { panic!("two fragments") };
        assert_eq!(bed.bought(&first.frame()).payload_length, 60);
        bed.counted(&later.frame(), Counter::LaterFragment);
        // Inside a tunnel.
        let [first, later] = &request(&bed).fragments(80)[..] else { panic!("two fragments") };
        bed.bought(&first.in_tunnel(from, to, &tunnel).frame());
        bed.counted(&later.in_tunnel(from, to, &tunnel).frame(), Counter::LaterFragment);
        // The tunnel's own packets.
        let outer = request(&bed).in_tunnel(from, to, &tunnel).fragments(120);
        bed.bought(&outer[0].frame());
        bed.counted(&outer[1].frame(), Counter::LaterFragment);
        // One fragment that is all of it (RFC 6946).
        bed.bought(&request(&bed).fragments(1 << 14)[0].frame());
    }
}

#[test]
fn ipv6_extension_headers() {
    testbed::need_root!();
    let mut bed = Bed::new();
    let extension = |kind| Ipv6Extension { kind, content: vec![0; 6] };
    let chain = |packet: Packet, kinds: &[u8]| {
        packet.ipv6_extensions(kinds.iter().copied().map(extension).collect()).frame()
    };
    bed.bought(&chain(bed.buy6(), &[0, 60, 43, 135, 60]));
    bed.counted(&chain(bed.buy6(), &[60; 7]), Counter::TooManyIpv6Extensions);
}

#[test]
fn gtpu_with_any_flags_and_chain() {
    testbed::need_root!();
    let mut bed = Bed::new();
    let extension = |kind| Extension { kind, content: vec![0; 6] };
    let (from, to) = n3();
    for sequence in [None, Some(7)] {
        for count in 0..=4 {
            let extensions = (0..count).map(|index| extension([0xc0, 0x20, 0x40, 0x82][index]));
            let tunnel = Gtpu { teid: 7, sequence, extensions: extensions.collect() };
            let record = bed.bought(&bed.buy().in_tunnel(from, to, &tunnel).frame());
            assert_eq!((record.teid, record.flags & (FLAG_TUNNEL | FLAG_QFI)), (7, FLAG_TUNNEL));
        }
        let endless = Gtpu { teid: 7, sequence, extensions: vec![extension(0xc0); 40] };
        let frame = bed.buy().in_tunnel(from, to, &endless).frame();
        bed.counted(&frame, Counter::TooManyGtpuExtensions);
    }
}

#[test]
fn gtpu_over_ipv6() {
    testbed::need_root!();
    let mut bed = Bed::new();
    let (from, to) = n3_v6();
    for packet in [bed.buy(), bed.buy6()] {
        let record = bed.bought(&packet.in_tunnel(from, to, &Gtpu::with_qfi(7, 9)).frame());
        assert_eq!((record.teid, record.qfi, record.gtpu_message_type), (7, 9, 255));
    }
}

#[test]
fn pdu_session_containers_up_and_down() {
    testbed::need_root!();
    let mut bed = Bed::new();
    let (from, to) = n3();
    for container in [Extension::pdu_session(63), Extension::pdu_session_downlink(63)] {
        let tunnel = Gtpu { teid: 7, sequence: None, extensions: vec![container] };
        let record = bed.bought(&bed.buy().in_tunnel(from, to, &tunnel).frame());
        assert_eq!((record.flags & FLAG_QFI, record.qfi), (FLAG_QFI, 63));
    }
}

#[test]
fn ethernet_pdu_sessions() {
    testbed::need_root!();
    let mut bed = Bed::new();
    bed.over_both(|inner, from, to| inner.bridged_in_tunnel(from, to, &Gtpu::with_qfi(7, 9)));
}

/// A rule on the UPF's own address sees them; nobody else's user does.
#[test]
fn gtpu_messages_without_a_users_packet() {
    testbed::need_root!();
    let bed = Bed::at(&[]);
    let (gnb, upf) = n3();
    let application = rules::application("upf", &[("172.16.0.2/32", 2152, 2152, Protocol::Udp)]);
    let first = Signature::UdpFirstPacket;
    let set = RuleSet {
        applications: vec![application.clone()],
        rules: vec![rules::rule("n3", &application, first).into()],
    };
    for hook in HOOKS {
        let mut pair = Pair::with(hook, (set.clone(), compile(&set, &[], 1).expect("compiles")));
        for message_type in [1, 2, 26, 31, 254] {
            let gtpu = Gtpu { teid: 7, sequence: Some(1), extensions: vec![] };
            let gnb = ip(&format!("172.16.1.{message_type}"));
            let frame = Packet::gtpu(gnb, upf, &gtpu.message(message_type, &[])).frame();
            let record = pair.send(&frame).expect("the first packet");
            assert_eq!(record.flow.ue, address(&gnb.to_string()));
            assert_eq!((record.gtpu_message_type, record.teid), (message_type, 7));
        }
        // The user's packet in a tunnel to the same address is not the UPF's.
        let users = bed.buy().in_tunnel(gnb, upf, &Gtpu::with_qfi(7, 9)).frame();
        assert_eq!(pair.send(&users), None);
        assert_eq!(pair.software.counter(Counter::Unwatched), 1);
    }
}

#[test]
fn vxlan() {
    testbed::need_root!();
    let mut bed = Bed::new();
    bed.over_both(|inner, from, to| inner.in_vxlan(from, to, 0xab_cdef));
}

#[test]
fn gre() {
    testbed::need_root!();
    let mut bed = Bed::new();
    let full = Gre { checksum: true, key: Some(u32::MAX), sequence: Some(0) };
    for gre in [Gre::default(), Gre { key: Some(7), ..Gre::default() }, full] {
        bed.over_both(|inner, from, to| inner.in_gre(from, to, gre));
        bed.over_both(|inner, from, to| inner.bridged_in_gre(from, to, gre));
    }
}

#[test]
fn ip_in_ip() {
    testbed::need_root!();
    let mut bed = Bed::new();
    bed.over_both(Packet::in_ip);
}

#[test]
fn tunnels_in_each_other() {
    testbed::need_root!();
    let mut bed = Bed::new();
    let ((from, to), (from6, to6)) = (n3(), n3_v6());
    let tunnel = Gtpu::with_qfi(7, 9);
    let three = bed.buy().in_tunnel(from, to, &tunnel).in_vxlan(from6, to6, 1).in_ip(from, to);
    assert_eq!(bed.bought(&three.frame()).qfi, 9);
    let four = three.in_gre(from, to, Gre::default());
    bed.counted(&four.frame(), Counter::TooManyTunnels);
    // The user's own tunnel is not entered: it would hide who the user is.
    let own = bed.buy().in_ip(ip("10.60.0.9"), ip("10.45.0.10")).in_tunnel(from, to, &tunnel);
    bed.counted(&own.frame(), Counter::OtherTransport);
}

#[test]
fn raw_ip_devices() {
    testbed::need_root!();
    let mut bed = Bed::at(&[Hook::XdpIp, Hook::TcIp]);
    let (from, to) = n3();
    let tunnelled = bed.buy6().in_tunnel(from, to, &Gtpu::with_qfi(7, 9));
    for packet in [bed.buy(), bed.buy6(), tunnelled, bed.buy().in_gre(from, to, Gre::default())] {
        bed.bought(&packet.bytes());
    }
}

/// A frame of 9,000 bytes: XDP has it in three buffers, of which it reads the first in place.
#[test]
fn xdp_frags_and_jumbo_mtu() {
    testbed::need_root!();
    let mut pair = Pair::new(Hook::XdpFrags);
    let payload = request(8_800);
    let packet =
        |sequence| Packet::tcp((ip(UE), 40_000), (ip(APP), 80), Tcp::data(sequence), &payload);
    let (from, to) = n3();
    let tunnelled = packet(2).in_tunnel(from, to, &Gtpu::with_qfi(7, 9));
    for frame in [packet(1).frame(), tunnelled.frame()] {
        let record = bought(&mut pair, &frame);
        assert_eq!(record.packet_length as usize, frame.len());
        assert_eq!(record.payload_length as usize, payload.len());
    }
}

/// The kernel side with the shop's rules, its TC program on what `device` of this namespace
/// receives.
fn attached(device: &str) -> Kernel {
    let (set, image) = rules::shop(1);
    let mut kernel = Kernel::load(KernelLimits::default()).expect("loads");
    kernel.rules.swap(&image, &set.rules).expect("rules are written");
    Hook::Tc.load(&mut kernel);
    let program = kernel.ebpf.program_mut("detector_tc_ethernet").expect("is in the object");
    let program = <&mut SchedClassifier>::try_from(program).expect("TC");
    program.attach(device, TcAttachType::Ingress).expect("attaches");
    kernel
}

/// The next record with a rule that matched a request.
fn next_request(kernel: &mut Kernel) -> RecordHeader {
    let next = || {
        while let Some(bytes) = kernel.ring.next() {
            let (record, _) = RecordHeader::read_from_prefix(&bytes).expect("a record");
            if record.rules[..usize::from(record.rule_count)].contains(&0) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    };
    testbed::wait::until("a record", Duration::from_secs(10), next).expect("in time")
}

/// Two namespaces with a veth pair: `ue0` and `n6`.
fn link() -> (Netns, Netns) {
    let (ue, dn) = (Netns::new("ue").expect("made"), Netns::new("dn").expect("made"));
    veth((&ue, "ue0"), (&dn, "n6")).expect("linked");
    (ue, dn)
}

/// The kernel takes the outer tag off before TC sees the packet (`skb_vlan_untag`).
#[test]
fn vlan_metadata_at_tc() {
    testbed::need_root!();
    let (ue, dn) = link();
    let mut kernel = dn.enter(|| attached("n6")).expect("entered");
    let send = |frame: Vec<u8>| ue.enter(|| raw_send("ue0", &frame)).expect("entered");
    let buy =
        |sequence| Packet::tcp((ip(UE), 40_000), (ip(APP), 80), Tcp::data(sequence), &request(0));
    send(buy(1).tagged_frame(&[100]));
    assert_eq!(next_request(&mut kernel).vlan, [100, 0, 0]);
    // 802.1ad outside, 802.1Q inside: one is taken off, the other stays in the frame.
    send(buy(2).tagged_frame(&[200, 300]));
    assert_eq!(next_request(&mut kernel).vlan, [200, 300, 0]);
}

fn raw_send(device: &str, frame: &[u8]) {
    use pnet::datalink::{self, Channel, Config};
    let interface = datalink::interfaces()
        .into_iter()
        .find(|interface| interface.name == device)
        .expect("the device");
    let Ok(Channel::Ethernet(mut sender, _)) = datalink::channel(&interface, Config::default())
    else {
        panic!("no channel on {device}");
    };
    sender.send_to(frame, None).expect("room").expect("sent");
}

/// A sender's TCP hands down many segments at once, and a veth lets them stay together.
#[test]
fn super_packets() {
    testbed::need_root!();
    let (ue, dn) = link();
    ue.ip("addr add 10.60.0.2/8 dev ue0").expect("address");
    dn.ip("addr add 10.45.0.10/8 dev n6").expect("address");
    let mut kernel = dn.enter(|| attached("n6")).expect("entered");
    let _listener = dn.listen("10.45.0.10:80".parse().expect("an address")).expect("listens");
    let server = "10.45.0.10:80".parse().expect("an address");
    let mut stream = ue.connect(None, server).expect("connects");
    stream.write_all(&request(10_000)).expect("sent");
    let record = next_request(&mut kernel);
    assert!(record.payload_length > 1_460, "one segment only: {record:?}");
    assert!(record.packet_length > 1_514, "one frame only: {record:?}");
}
