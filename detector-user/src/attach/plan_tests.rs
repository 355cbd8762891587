//! Tables: facts, wish and kernel -> attempts.

use super::*;
use crate::attach::{
    holder::SlotHolder,
    privileges::{Release, TCX},
};

use HookPoint::{TcEgress, TcIngress, XdpGeneric, XdpNative};
use KernelProgram::{TcEthernet, TcIp, XdpEthernet, XdpFragsEthernet, XdpIp};

fn device(layer: Layer, mtu: u32) -> Device {
    Device { index: 3, name: "n6".into(), layer, mtu, up: true, kind: None, xdp: vec![] }
}

fn attempts(device: &Device, hook: Hook, kernel: Release) -> Vec<(HookPoint, KernelProgram)> {
    let parts = plan(device, hook, Directions::Receive, &KernelFeatures::of(kernel));
    parts[0].attempts.iter().map(|attempt| (attempt.hook, attempt.program)).collect()
}

fn troubles(device: &Device, hook: Hook, kernel: Release) -> Vec<Trouble> {
    plan(device, hook, Directions::Receive, &KernelFeatures::of(kernel)).remove(0).troubles
}

const NATIVE: (HookPoint, KernelProgram) = (XdpNative, XdpEthernet);
const NATIVE_FRAGS: (HookPoint, KernelProgram) = (XdpNative, XdpFragsEthernet);
const GENERIC: (HookPoint, KernelProgram) = (XdpGeneric, XdpEthernet);
const INGRESS: (HookPoint, KernelProgram) = (TcIngress, TcEthernet);

#[test]
fn received_ethernet_goes_from_native_to_generic_to_tc() {
    let table = [
        (1500, Hook::Auto, vec![NATIVE, NATIVE_FRAGS, GENERIC, INGRESS]),
        (SINGLE_PAGE_MTU, Hook::Auto, vec![NATIVE, NATIVE_FRAGS, GENERIC, INGRESS]),
        (SINGLE_PAGE_MTU + 1, Hook::Auto, vec![NATIVE_FRAGS, GENERIC, INGRESS]),
        (9000, Hook::Auto, vec![NATIVE_FRAGS, GENERIC, INGRESS]),
        (1500, Hook::Xdp, vec![NATIVE, NATIVE_FRAGS]),
        (9000, Hook::Xdp, vec![NATIVE_FRAGS]),
        (1500, Hook::XdpGeneric, vec![GENERIC]),
        (9000, Hook::XdpGeneric, vec![GENERIC]),
        (1500, Hook::Tc, vec![INGRESS]),
    ];
    for (mtu, hook, expected) in table {
        assert_eq!(attempts(&device(Layer::Ethernet, mtu), hook, TCX), expected, "{mtu} {hook:?}");
    }
}

#[test]
fn the_single_page_limit_is_3498() {
    assert_eq!(SINGLE_PAGE_MTU, 3_498);
    assert_eq!(troubles(&device(Layer::Ethernet, 3_498), Hook::Auto, TCX), []);
    let above = troubles(&device(Layer::Ethernet, 3_499), Hook::Auto, TCX);
    assert_eq!(above, [Trouble::MtuTooLarge { mtu: 3_499 }]);
}

#[test]
fn devices_without_ethernet_get_the_ip_programs_and_never_native_xdp() {
    let tun = device(Layer::Ip, 1400);
    assert_eq!(attempts(&tun, Hook::Auto, TCX), [(XdpGeneric, XdpIp), (TcIngress, TcIp)]);
    assert_eq!(troubles(&tun, Hook::Auto, TCX), []);
    assert_eq!(attempts(&tun, Hook::XdpGeneric, TCX), [(XdpGeneric, XdpIp)]);
    assert_eq!(attempts(&tun, Hook::Tc, TCX), [(TcIngress, TcIp)]);
    assert_eq!(attempts(&tun, Hook::Xdp, TCX), []);
    assert_eq!(troubles(&tun, Hook::Xdp, TCX), [Trouble::NoEthernetForXdp]);
}

#[test]
fn a_kernel_without_xdp_load_bytes_gets_tc_and_says_so() {
    let n6 = device(Layer::Ethernet, 9000);
    let old = Release(5, 10);
    assert_eq!(attempts(&n6, Hook::Auto, old), [INGRESS]);
    let expected = Trouble::KernelWithoutXdp { running: old, tc_instead: true };
    assert_eq!(troubles(&n6, Hook::Auto, old), [expected]);
    assert_eq!(attempts(&n6, Hook::Xdp, old), []);
    let expected = Trouble::KernelWithoutXdp { running: old, tc_instead: false };
    assert_eq!(troubles(&n6, Hook::Xdp, old), [expected]);
    assert_eq!(troubles(&n6, Hook::Tc, old), []);
}

#[test]
fn what_is_sent_has_tc_egress_whatever_the_hook() {
    let kernel = KernelFeatures::of(TCX);
    for hook in [Hook::Auto, Hook::Xdp, Hook::XdpGeneric, Hook::Tc] {
        for (layer, program) in [(Layer::Ethernet, TcEthernet), (Layer::Ip, TcIp)] {
            let parts = plan(&device(layer, 1500), hook, Directions::Send, &kernel);
            let [part] = parts.as_slice() else { panic!("{parts:?}") };
            assert_eq!(part.traffic, Traffic::Sent);
            assert_eq!(part.attempts, [Attempt { hook: TcEgress, program }]);
        }
    }
}

#[test]
fn both_directions_are_two_parts() {
    let n6 = device(Layer::Ethernet, 1500);
    let parts = plan(&n6, Hook::Auto, Directions::Both, &KernelFeatures::of(TCX));
    let traffic: Vec<_> = parts.iter().map(|part| part.traffic).collect();
    assert_eq!(traffic, [Traffic::Received, Traffic::Sent]);
}

#[test]
fn a_device_that_carries_no_ip_gets_nothing_but_the_reason() {
    let can = device(Layer::Other(280), 72);
    for hook in [Hook::Auto, Hook::Xdp, Hook::XdpGeneric, Hook::Tc] {
        for part in plan(&can, hook, Directions::Both, &KernelFeatures::of(Release(5, 10))) {
            assert_eq!(part.attempts, []);
            assert_eq!(part.troubles, [Trouble::UnknownLayer { arphrd: 280 }]);
        }
    }
}

#[test]
fn each_refusal_rules_out_what_it_must() {
    let holder = SlotHolder {
        program_id: 1,
        mode: crate::attach::device::XdpSlotMode::Native,
        name: None,
        process: None,
    };
    let attempt = |(hook, program)| Attempt { hook, program };
    let left = |refusal: Trouble| {
        let all = [NATIVE, NATIVE_FRAGS, GENERIC, INGRESS];
        let worth = |one: &_| worth_trying(attempt(*one), std::slice::from_ref(&refusal));
        all.into_iter().filter(worth).collect::<Vec<_>>()
    };
    assert_eq!(left(Trouble::SlotTaken { holders: vec![holder] }), [INGRESS]);
    assert_eq!(left(Trouble::NoNativeXdp { kind: None }), [GENERIC, INGRESS]);
    assert_eq!(left(Trouble::MtuTooLarge { mtu: 1500 }), [NATIVE_FRAGS, GENERIC, INGRESS]);
    assert_eq!(left(Trouble::Vanished), []);
    assert_eq!(left(Trouble::MissingCapabilities { missing: vec![] }), []);
    let refused = Trouble::Refused { hook: XdpNative, error: "ENOSPC".into() };
    assert_eq!(left(refused).len(), 4);
}

#[test]
fn says_which_way_the_user_s_packets_go() {
    let n6 = device(Layer::Ethernet, 1500);
    assert_eq!(
        sees(&n6, Traffic::Received),
        "what n6 receives: downlink on the UPF's own N6 device, uplink on the application's side \
         of N6"
    );
    assert_eq!(
        sees(&n6, Traffic::Sent),
        "what n6 sends: uplink on the UPF's own N6 device, downlink on the application's side of N6"
    );
    let tun = device(Layer::Ip, 1500);
    assert!(sees(&tun, Traffic::Received).contains("uplink on a UPF's tun or gtp device"));
    assert!(sees(&tun, Traffic::Sent).contains("downlink on a UPF's tun or gtp device"));
}
