//! What can stand in the way, and what to tell the operator about it: what happened, what
//! follows from it, what to do.

use std::fmt;

use serde::Serialize;

use super::{
    device::ListError,
    holder::SlotHolder,
    plan::HookPoint,
    privileges::{Capability, Release, XDP_LOAD_BYTES},
};

/// Why something is not attached as wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Another program is in the device's XDP slot.
    SlotTaken {
        /// Who, if the kernel told.
        holders: Vec<SlotHolder>,
    },
    /// The driver runs no XDP programs.
    NoNativeXdp {
        /// `Device::kind`.
        kind: Option<String>,
    },
    /// The device's packets (or those of a veth's other end) do not fit one page.
    MtuTooLarge {
        /// The device's own MTU.
        mtu: u32,
    },
    /// Native XDP reads Ethernet, this device has none.
    NoEthernetForXdp,
    /// Neither Ethernet nor IP.
    UnknownLayer {
        /// The `ARPHRD_*` number.
        arphrd: u16,
    },
    /// The process lacks capabilities.
    MissingCapabilities {
        /// These.
        missing: Vec<Capability>,
    },
    /// The kernel said no though the capabilities are there: a lockdown or a container's filter.
    NotPermitted {
        /// Where.
        hook: HookPoint,
    },
    /// Without ring buffer nothing works.
    KernelTooOld {
        /// What runs.
        running: Release,
        /// What it takes.
        needed: Release,
    },
    /// The XDP programs do not load here.
    KernelWithoutXdp {
        /// What runs.
        running: Release,
        /// The wish allows TC ingress in their place.
        tc_instead: bool,
    },
    /// The attachment outlives a crash of the agent.
    OutlivesCrash {
        /// What runs.
        running: Release,
    },
    /// The device went while it was being attached to.
    Vanished,
    /// A device of the configuration that is not there.
    NoSuchDevice,
    /// The device carries no program though it did; somebody removed it.
    Detached {
        /// From where.
        hook: HookPoint,
    },
    /// Any other refusal of the kernel.
    Refused {
        /// Where.
        hook: HookPoint,
        /// The kernel's words.
        error: String,
    },
}

/// How much a [`Notice`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Works, at some cost.
    Info,
    /// Something is not seen, or may not be.
    Warning,
}

/// A [`Trouble`] in plain words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// The device or pattern it is about.
    pub device: String,
    /// What happened.
    pub what: String,
    /// What follows from it.
    pub consequence: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level: _, device, what, consequence, remedy } = self;
        write!(f, "{device}: {what}; {consequence}. To do: {remedy}")
    }
}

/// Nothing can be attached at all.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel object does not hold this program.
    #[error("the kernel object has no program `{0}`; it was built from other sources")]
    NoSuchProgram(&'static str),
    /// The kernel did not take the program.
    #[error("the kernel refused to load `{program}`: {error}{hint}{log}")]
    Load {
        /// Which one.
        program: &'static str,
        /// The kernel's words.
        error: std::io::Error,
        /// What to do, if that is known.
        hint: String,
        /// The end of the verifier's log, if it wrote one.
        log: String,
    },
    /// Loading failed before or beside the verifier.
    #[error("cannot load `{program}`: {error}")]
    Prepare {
        /// Which one.
        program: &'static str,
        /// aya's words.
        error: Box<aya::programs::ProgramError>,
    },
    /// The running kernel's release is unknown.
    #[error("cannot tell the kernel's release: {0}")]
    Kernel(std::io::Error),
    /// The devices are unknown.
    #[error(transparent)]
    List(#[from] ListError),
}

impl Trouble {
    /// Says it, about `device`.
    pub fn notice(&self, device: &str) -> Notice {
        let (what, consequence, remedy) = self.words(device);
        Notice { level: self.level(), device: device.into(), what, consequence, remedy }
    }

    fn level(&self) -> Level {
        match self {
            Self::NoNativeXdp { .. }
            | Self::MtuTooLarge { .. }
            | Self::KernelWithoutXdp { tc_instead: true, .. } => Level::Info,
            Self::SlotTaken { .. }
            | Self::NoEthernetForXdp
            | Self::UnknownLayer { .. }
            | Self::MissingCapabilities { .. }
            | Self::NotPermitted { .. }
            | Self::KernelTooOld { .. }
            | Self::KernelWithoutXdp { tc_instead: false, .. }
            | Self::OutlivesCrash { .. }
            | Self::Vanished
            | Self::NoSuchDevice
            | Self::Detached { .. }
            | Self::Refused { .. } => Level::Warning,
        }
    }

    fn words(&self, device: &str) -> (String, String, String) {
        let words = |what: String, consequence: &str, remedy: &str| {
            (what, consequence.to_string(), remedy.to_string())
        };
        match self {
            Self::SlotTaken { holders } => slot_taken(device, holders),
            Self::NoNativeXdp { kind } => words(
                format!("{} runs no native XDP here", driver(kind.as_deref())),
                "packets are taken later in the network stack, at more cost each",
                "nothing, or use a card whose driver has XDP",
            ),
            Self::MtuTooLarge { mtu } => words(
                format!(
                    "packets are too large for single-page XDP (MTU {mtu}, or the other end's MTU)"
                ),
                "only programs for multi-buffer packets (xdp.frags) or another hook will do",
                "nothing, or lower the MTU on both ends to 3498 or less",
            ),
            Self::NoEthernetForXdp => words(
                "the device has no Ethernet header, which native XDP needs".into(),
                "what it receives is not seen",
                "set `hook: auto`, `xdp-generic` or `tc` for this device",
            ),
            Self::UnknownLayer { arphrd } => words(
                format!("packets start with neither Ethernet nor IP (ARPHRD type {arphrd})"),
                "nothing of this device is seen",
                "take it off the device list, or name the device above or below it",
            ),
            Self::MissingCapabilities { missing } => missing_capabilities(missing),
            Self::NotPermitted { hook } => words(
                format!("the kernel does not permit {hook}, though the capabilities are there"),
                "what this hook would see is not seen",
                "look for kernel lockdown, a seccomp filter, or a user namespace around the agent",
            ),
            Self::KernelTooOld { running, needed } => words(
                format!("kernel {running} has no BPF ring buffer"),
                "the agent cannot run",
                &format!("boot kernel {needed} or newer"),
            ),
            Self::KernelWithoutXdp { running, tc_instead } => words(
                format!("kernel {running} lacks bpf_xdp_load_bytes, which the XDP programs need"),
                if *tc_instead {
                    "received packets are taken at TC ingress"
                } else {
                    "what the device receives is not seen"
                },
                &format!("set `hook: auto` or `tc`, or boot kernel {XDP_LOAD_BYTES} or newer"),
            ),
            Self::OutlivesCrash { running } => words(
                format!("kernel {running} has no TC links, the filter is attached by netlink"),
                "a crash of the agent leaves the filter on the device until the agent's next start",
                &format!(
                    "nothing, or `tc filter del dev {device} ingress` and `egress` after a crash"
                ),
            ),
            Self::Vanished => words(
                "the device went away while it was being attached to".into(),
                "nothing of it is seen until it returns",
                "nothing: it is attached to again when it returns",
            ),
            Self::NoSuchDevice => words(
                "no such device in this network namespace".into(),
                "nothing of it is seen until it appears",
                "create it or correct the name; it is attached to as soon as it appears",
            ),
            Self::Detached { hook } => words(
                format!("{hook} lost its program, somebody detached it"),
                "packets passed unseen in the meantime",
                "find who did (`bpftool net`); it is attached again now",
            ),
            Self::Refused { hook, error } => words(
                format!("the kernel refused {hook}: {error}"),
                "what this hook would see is not seen there",
                "see the kernel's log (`dmesg`), or choose another hook for this device",
            ),
        }
    }
}

fn driver(kind: Option<&str>) -> String {
    kind.map_or_else(|| "the driver".into(), |kind| format!("the driver ({kind})"))
}

fn slot_taken(device: &str, holders: &[SlotHolder]) -> (String, String, String) {
    let who = if holders.is_empty() {
        "another program".to_string()
    } else {
        holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
    };
    let ours = |holder: &SlotHolder| {
        holder.process.is_none()
            && holder.name.as_deref().is_some_and(|name| name.starts_with("detector_"))
    };
    let remedy = if holders.iter().any(ours) {
        "an agent with spec.pin left it: give this one the same spec.pin, or remove it by \
         `detector detach`"
            .into()
    } else {
        format!(
            "detach that program (`ip link set dev {device} xdp off` if it was attached so), or \
             watch the next hop's device instead"
        )
    };
    (
        format!("the XDP slot is taken by {who}"),
        "XDP is not possible, and packets that program redirects reach neither TC nor the agent"
            .into(),
        remedy,
    )
}

fn missing_capabilities(missing: &[Capability]) -> (String, String, String) {
    let names: Vec<_> = missing.iter().map(|capability| capability.name()).collect();
    let list = match names.as_slice() {
        [] => "capabilities".to_string(),
        [one] => (*one).to_string(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    };
    (
        format!("the process lacks {list}"),
        "programs cannot be loaded or attached".into(),
        "run as root, or grant them: systemd `AmbientCapabilities=`, Kubernetes \
         `securityContext.capabilities.add`, or `setcap`"
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::device::XdpSlotMode;

    #[test]
    fn a_taken_slot_names_the_program_and_its_process() {
        let holder = SlotHolder {
            program_id: 42,
            mode: XdpSlotMode::Native,
            name: Some("upf_n6".into()),
            process: Some((811, "upf".into())),
        };
        let notice = Trouble::SlotTaken { holders: vec![holder] }.notice("n6");
        assert_eq!(
            notice.what,
            "the XDP slot is taken by `upf_n6` (id 42, native, held by upf, pid 811)"
        );
        assert!(notice.consequence.contains("neither TC nor the agent"));
    }

    #[test]
    fn a_slot_that_a_pinned_program_of_ours_holds_is_freed_by_detach() {
        let holder = |name: &str| SlotHolder {
            program_id: 42,
            mode: XdpSlotMode::Native,
            name: Some(name.into()),
            process: None,
        };
        let remedy = |name| Trouble::SlotTaken { holders: vec![holder(name)] }.notice("n6").remedy;
        assert!(remedy("detector_xdp_et").contains("`detector detach`"));
        assert!(remedy("upf_n6").contains("xdp off"));
    }

    #[test]
    fn a_notice_reads_as_one_line() {
        let line = Trouble::NoSuchDevice.notice("n6").to_string();
        assert!(line.starts_with("n6: no such device in this network namespace; "), "{line}");
        assert!(line.contains("To do: create it"), "{line}");
        assert!(!line.contains('\n'));
    }
}
