//! What to try on a device, in which order, and what it will and will not see. Pure.

use std::fmt;

use serde::Serialize;

use super::{
    device::{Device, Layer},
    privileges::KernelFeatures,
    programs::KernelProgram,
    trouble::Trouble,
    wish::{Directions, Hook},
};

/// Largest MTU of single-page native XDP: a page (4,096) less the headroom of XDP (256), the
/// kernel's `skb_shared_info` (320), the Ethernet header (14) and two VLAN tags (8).
pub const SINGLE_PAGE_MTU: u32 = 4_096 - 256 - 320 - 14 - 8;

/// Which of a device's packets, as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// What the device receives.
    Received,
    /// What the device sends.
    Sent,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Received => "received",
            Self::Sent => "sent",
        })
    }
}

/// A place in the kernel where a program can sit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookPoint {
    /// XDP in the driver.
    XdpNative,
    /// XDP in the network stack.
    XdpGeneric,
    /// TC on received packets.
    TcIngress,
    /// TC on sent packets.
    TcEgress,
}

impl HookPoint {
    /// As it is written for programs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp-native",
            Self::XdpGeneric => "xdp-generic",
            Self::TcIngress => "tc-ingress",
            Self::TcEgress => "tc-egress",
        }
    }

    /// What is special about what a program sees here.
    pub const fn view(self) -> &'static str {
        match self {
            Self::XdpNative => "every frame as the driver gets it, before the network stack",
            Self::XdpGeneric => "every packet after the driver joined segments (GRO)",
            Self::TcIngress => "packets after XDP; not those an XDP program redirects or drops",
            Self::TcEgress => "packets the stack sends; not those an XDP program redirects here",
        }
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XdpNative => "XDP native",
            Self::XdpGeneric => "XDP generic",
            Self::TcIngress => "TC ingress",
            Self::TcEgress => "TC egress",
        })
    }
}

/// One thing to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Where.
    pub hook: HookPoint,
    /// With which program.
    pub program: KernelProgram,
}

/// The plan for one kind of traffic of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which packets.
    pub traffic: Traffic,
    /// What to try, best first; the first that works is used.
    pub attempts: Vec<Attempt>,
    /// What is known beforehand to stand in the way of more.
    pub troubles: Vec<Trouble>,
}

/// The parts for the wished directions of one device.
pub fn plan(
    device: &Device,
    hook: Hook,
    directions: Directions,
    kernel: &KernelFeatures,
) -> Vec<Part> {
    let received = || receive(device, hook, kernel);
    match directions {
        Directions::Both => vec![received(), send(device)],
        Directions::Receive => vec![received()],
        Directions::Send => vec![send(device)],
    }
}

/// What `traffic` of this device is, on a user plane, in a sentence.
pub fn sees(device: &Device, traffic: Traffic) -> String {
    let verb = match traffic {
        Traffic::Received => "receives",
        Traffic::Sent => "sends",
    };
    format!("what {} {verb}: {}", device.name, meaning(device.layer, traffic))
}

/// What received and sent packets are, on a user plane. Across N6 the UPF sends uplink, which the
/// application's side receives; out of its tun or gtp device a UPF's stack receives uplink.
pub const fn meaning(layer: Layer, traffic: Traffic) -> &'static str {
    match (layer, traffic) {
        (Layer::Ethernet, Traffic::Received) => {
            "downlink on the UPF's own N6 device, uplink on the application's side of N6"
        }
        (Layer::Ethernet, Traffic::Sent) => {
            "uplink on the UPF's own N6 device, downlink on the application's side of N6"
        }
        (Layer::Ip, Traffic::Received) => {
            "uplink on a UPF's tun or gtp device, downlink on a UE's tun device"
        }
        (Layer::Ip, Traffic::Sent) => {
            "downlink on a UPF's tun or gtp device, uplink on a UE's tun device"
        }
        (Layer::Other(_), Traffic::Received | Traffic::Sent) => "nothing Detector can read",
    }
}

fn receive(device: &Device, hook: Hook, kernel: &KernelFeatures) -> Part {
    let mut troubles = Vec::new();
    let mut attempts = match hook {
        Hook::Auto => {
            let mut attempts = match device.layer {
                Layer::Ethernet => native(device, &mut troubles),
                Layer::Ip | Layer::Other(_) => Vec::new(),
            };
            attempts.extend(generic(device.layer));
            attempts.extend(tc(device.layer, HookPoint::TcIngress));
            attempts
        }
        Hook::Xdp => native(device, &mut troubles),
        Hook::XdpGeneric => generic(device.layer),
        Hook::Tc => tc(device.layer, HookPoint::TcIngress),
    };
    if let Layer::Other(arphrd) = device.layer {
        troubles = vec![Trouble::UnknownLayer { arphrd }];
    } else if !kernel.xdp && attempts.iter().any(|attempt| attempt.program.is_xdp()) {
        attempts.retain(|attempt| !attempt.program.is_xdp());
        let tc_instead = !attempts.is_empty();
        troubles = vec![Trouble::KernelWithoutXdp { running: kernel.release, tc_instead }];
    }
    Part { traffic: Traffic::Received, attempts, troubles }
}

fn send(device: &Device) -> Part {
    let troubles = match device.layer {
        Layer::Other(arphrd) => vec![Trouble::UnknownLayer { arphrd }],
        Layer::Ethernet | Layer::Ip => Vec::new(),
    };
    let attempts = tc(device.layer, HookPoint::TcEgress);
    Part { traffic: Traffic::Sent, attempts, troubles }
}

fn native(device: &Device, troubles: &mut Vec<Trouble>) -> Vec<Attempt> {
    let hook = HookPoint::XdpNative;
    let single = Attempt { hook, program: KernelProgram::XdpEthernet };
    // Also after `single`: the other end of a veth may have a larger MTU, which no fact of this
    // end tells.
    let frags = Attempt { hook, program: KernelProgram::XdpFragsEthernet };
    match device.layer {
        Layer::Ethernet if device.mtu <= SINGLE_PAGE_MTU => vec![single, frags],
        Layer::Ethernet => {
            troubles.push(Trouble::MtuTooLarge { mtu: device.mtu });
            vec![frags]
        }
        Layer::Ip => {
            troubles.push(Trouble::NoEthernetForXdp);
            vec![]
        }
        Layer::Other(_) => vec![],
    }
}

/// Generic XDP makes packets of any size linear for a program without frags.
fn generic(layer: Layer) -> Vec<Attempt> {
    let attempt = |program| vec![Attempt { hook: HookPoint::XdpGeneric, program }];
    match layer {
        Layer::Ethernet => attempt(KernelProgram::XdpEthernet),
        Layer::Ip => attempt(KernelProgram::XdpIp),
        Layer::Other(_) => vec![],
    }
}

fn tc(layer: Layer, hook: HookPoint) -> Vec<Attempt> {
    match layer {
        Layer::Ethernet => vec![Attempt { hook, program: KernelProgram::TcEthernet }],
        Layer::Ip => vec![Attempt { hook, program: KernelProgram::TcIp }],
        Layer::Other(_) => vec![],
    }
}

/// Is an attempt still worth it after these refusals?
pub fn worth_trying(attempt: Attempt, refusals: &[Trouble]) -> bool {
    refusals.iter().all(|refusal| match refusal {
        // One slot for native and generic: EBUSY, EEXIST (dev_xdp_attach).
        Trouble::SlotTaken { .. } => !attempt.program.is_xdp(),
        Trouble::NoNativeXdp { .. } => attempt.hook != HookPoint::XdpNative,
        Trouble::MtuTooLarge { .. } => {
            attempt.hook != HookPoint::XdpNative
                || attempt.program == KernelProgram::XdpFragsEthernet
        }
        Trouble::MissingCapabilities { .. }
        | Trouble::Vanished
        | Trouble::NoSuchDevice
        | Trouble::UnknownLayer { .. }
        | Trouble::KernelTooOld { .. } => false,
        Trouble::NoEthernetForXdp
        | Trouble::NotPermitted { .. }
        | Trouble::KernelWithoutXdp { .. }
        | Trouble::OutlivesCrash { .. }
        | Trouble::Detached { .. }
        | Trouble::Refused { .. } => true,
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
