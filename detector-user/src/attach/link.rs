//! One try: attach one program at one hook of one device, and say in our words what came of it.
//!
//! XDP and (from 6.6) TC attachments are BPF links: file descriptors, so that the kernel detaches
//! when their owner is gone, however it went, unless they are pinned: then the next owner finds them
//! and puts its program in the place of the old one, between two packets. Before 6.6 TC goes by
//! netlink, through the clsact qdisc, and stays after a crash; the next start removes what it finds
//! under our name.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError},
        xdp::{XdpError, XdpLink},
    },
};
use nix::net::if_::if_nametoindex;

use super::{
    device::{Device, XdpSlotMode},
    holder::SlotHolder,
    plan::{Attempt, HookPoint},
    privileges::{Capabilities, KernelFeatures},
    programs,
    trouble::{AttachError, Trouble},
};

/// An attachment; dropping it detaches, unless it is pinned.
#[derive(Debug)]
pub struct OwnedLink {
    /// The program's number in the kernel.
    pub program_id: u32,
    pin: Option<PathBuf>,
    _link: Link,
}

/// aya detaches when one of these is dropped; a pinned one stays attached.
#[derive(Debug)]
enum Link {
    Xdp(XdpLink),
    Tc(SchedClassifierLink),
    Pinned(FdLink),
}

impl OwnedLink {
    /// Its pin.
    pub fn pin(&self) -> Option<&Path> {
        self.pin.as_deref()
    }

    /// Detaches, pinned or not.
    pub(super) fn detach(self) {
        if let Some(pin) = &self.pin {
            unpin(pin);
        }
    }
}

/// Removes a pin, and with it the attachment if nobody holds it.
pub(super) fn unpin(pin: &Path) {
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("{}: {error}; its program stays attached", pin.display());
        }
        Ok(()) | Err(_) => {}
    }
}

/// Why an attempt did not succeed.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Something about this device and hook; the next attempt may do.
    Trouble(Trouble),
    /// Something about the object; no attempt will do.
    Fatal(AttachError),
}

impl From<AttachError> for Refusal {
    fn from(error: AttachError) -> Self {
        Self::Fatal(error)
    }
}

/// Tries it. With `pin`, takes over the attachment that is pinned there, or pins a new one.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    device: &Device,
    attempt: Attempt,
    kernel: &KernelFeatures,
    pin: Option<&Path>,
) -> Result<OwnedLink, Refusal> {
    let xdp = |ebpf, mode| Ok(attach_xdp(programs::xdp(ebpf, attempt.program)?, device, mode, pin));
    let tc = |ebpf, side| {
        let program = programs::tc(ebpf, attempt.program)?;
        Ok(attach_tc(program, attempt.program.name(), device, side, kernel, pin))
    };
    let attached: Result<_, AttachError> = match attempt.hook {
        HookPoint::XdpNative => xdp(ebpf, XdpMode::Driver),
        HookPoint::XdpGeneric => xdp(ebpf, XdpMode::Skb),
        HookPoint::TcIngress => tc(ebpf, TcAttachType::Ingress),
        HookPoint::TcEgress => tc(ebpf, TcAttachType::Egress),
    };
    attached?.map_err(|error| Refusal::Trouble(diagnose(device, attempt.hook, &error)))
}

fn attach_xdp(
    program: &mut Xdp,
    device: &Device,
    mode: XdpMode,
    pin: Option<&Path>,
) -> Result<OwnedLink, ProgramError> {
    let pinned = pin.and_then(pinned);
    if let Some(link) = pinned.and_then(|link| XdpLink::try_from(link).ok())
        && let Some(id) = unless_gone(program.attach_to_link(link), pin)?
    {
        let link = program.take_link(id)?;
        return own(program.info()?.id(), pin, true, Link::Xdp(link));
    }
    let id = program.attach_to_if_index(device.index, mode)?;
    let link = program.take_link(id)?;
    own(program.info()?.id(), pin, false, Link::Xdp(link))
}

fn attach_tc(
    program: &mut SchedClassifier,
    name: &str,
    device: &Device,
    side: TcAttachType,
    kernel: &KernelFeatures,
    pin: Option<&Path>,
) -> Result<OwnedLink, ProgramError> {
    let pinned = pin.and_then(pinned);
    if let Some(link) = pinned.and_then(|link| SchedClassifierLink::try_from(link).ok())
        && let Some(id) = unless_gone(program.attach_to_link(link), pin)?
    {
        let link = program.take_link(id)?;
        return own(program.info()?.id(), pin, true, Link::Tc(link));
    }
    // aya attaches TC by name; a device may have been renamed, and its name given to another,
    // since the facts were read.
    if if_nametoindex(device.name.as_str()).ok() != Some(device.index) {
        return Err(io::Error::from_raw_os_error(libc::ENODEV).into());
    }
    let options = if kernel.tcx {
        // First, so that a program that redirects or drops does not hide packets from us. We
        // always return TC_ACT_UNSPEC, "go on with the next".
        TcAttachOptions::TcxOrder(LinkOrder::first())
    } else {
        prepare_clsact(&device.name, side, name)?;
        TcAttachOptions::Netlink(NlOptions::default())
    };
    let id = program.attach_with_options(&device.name, side, options)?;
    let link = program.take_link(id)?;
    // What went by netlink is no file descriptor, and outlives us without a pin.
    let pin = pin.filter(|_| kernel.tcx);
    own(program.info()?.id(), pin, false, Link::Tc(link))
}

/// The attachment that is pinned there.
fn pinned(pin: &Path) -> Option<FdLink> {
    PinnedLink::from_pin(pin).ok().map(FdLink::from)
}

/// The result of putting a program in a link's place; `None` if the link's device is gone, or was
/// made anew: then the pin is of no use, and removed.
fn unless_gone<T>(
    updated: Result<T, ProgramError>,
    pin: Option<&Path>,
) -> Result<Option<T>, ProgramError> {
    match updated {
        // bpf_xdp_link_update(), tcx_link_update()
        Err(error) if errno(&error) == Some(libc::ENOLINK) => {
            if let Some(pin) = pin {
                unpin(pin);
            }
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// An attachment, pinned if there is a place for it.
fn own(
    program_id: u32,
    pin: Option<&Path>,
    is_pinned: bool,
    link: Link,
) -> Result<OwnedLink, ProgramError> {
    let unpinned = |link| OwnedLink { program_id, pin: None, _link: link };
    let Some(pin) = pin else { return Ok(unpinned(link)) };
    let link = match link {
        Link::Xdp(link) => FdLink::try_from(link),
        Link::Tc(link) => FdLink::try_from(link),
        Link::Pinned(link) => Ok(link),
    };
    let link = link.map_err(|error| io::Error::other(chain(&error)))?;
    if is_pinned {
        let pin = Some(pin.to_owned());
        return Ok(OwnedLink { program_id, pin, _link: Link::Pinned(link) });
    }
    // Of something that is no attachment of this kind.
    unpin(pin);
    let pinned = link.pin(pin).map_err(|error| io::Error::other(chain(&error)))?;
    let (pin, link) = (Some(pin.to_owned()), Link::Pinned(pinned.into()));
    Ok(OwnedLink { program_id, pin, _link: link })
}

/// Makes the clsact qdisc, if it is not there, and removes a filter that a crash left behind.
fn prepare_clsact(device: &str, side: TcAttachType, program: &str) -> Result<(), ProgramError> {
    match tc::qdisc_add_clsact(device) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        other => other?,
    }
    match tc::qdisc_detach_program(device, side, program) {
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}

fn diagnose(device: &Device, hook: HookPoint, error: &ProgramError) -> Trouble {
    let missing = || Capabilities::current().map(Capabilities::missing).unwrap_or_default();
    // An offloaded program does not share the slot of native and generic XDP (dev_xdp_attach).
    let holders = || {
        let slots = device.xdp.iter().filter(|slot| slot.mode != XdpSlotMode::Offload);
        slots.map(|slot| SlotHolder::of(*slot)).collect()
    };
    let xdp = matches!(hook, HookPoint::XdpNative | HookPoint::XdpGeneric);
    let native = hook == HookPoint::XdpNative;
    match errno(error) {
        Some(libc::EBUSY | libc::EEXIST) if xdp => Trouble::SlotTaken { holders: holders() },
        Some(libc::EOPNOTSUPP) if native => Trouble::NoNativeXdp { kind: device.kind.clone() },
        // veth says ERANGE; other drivers EINVAL or EOPNOTSUPP, and a word in the kernel's log.
        Some(libc::ERANGE) if native => Trouble::MtuTooLarge { mtu: device.mtu },
        Some(libc::ENODEV | libc::ENXIO) => Trouble::Vanished,
        Some(libc::EPERM | libc::EACCES) => match missing() {
            missing if missing.is_empty() => Trouble::NotPermitted { hook },
            missing => Trouble::MissingCapabilities { missing },
        },
        _ => Trouble::Refused { hook, error: chain(error) },
    }
}

/// The kernel's error number, wherever aya put it.
fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::IOError(error) | ProgramError::TcError(TcError::IoError(error)) => {
            error.raw_os_error()
        }
        ProgramError::NetlinkError(error)
        | ProgramError::TcError(TcError::NetlinkError(error))
        | ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        ProgramError::UnknownInterface { .. } => Some(libc::ENODEV),
        _ => None,
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;
    use crate::attach::device::{Layer, XdpSlot};

    fn device() -> Device {
        Device {
            index: 3,
            name: "n6".into(),
            layer: Layer::Ethernet,
            mtu: 1500,
            up: true,
            kind: Some("veth".into()),
            // Numbers this high are never given to a program in a test run.
            xdp: vec![XdpSlot { mode: XdpSlotMode::Native, program_id: u32::MAX }],
        }
    }

    fn refused(hook: HookPoint, errno: i32) -> Trouble {
        let io_error = io::Error::from_raw_os_error(errno);
        let error = ProgramError::SyscallError(SyscallError { call: "bpf_link_create", io_error });
        diagnose(&device(), hook, &error)
    }

    #[test]
    fn both_errors_for_a_taken_slot_name_the_holder() {
        for errno in [libc::EBUSY, libc::EEXIST] {
            let Trouble::SlotTaken { holders } = refused(HookPoint::XdpNative, errno) else {
                panic!("errno {errno}")
            };
            assert_eq!(holders[0].program_id, u32::MAX);
        }
    }

    #[test]
    fn an_error_means_different_things_at_different_hooks() {
        use HookPoint::{TcIngress, XdpGeneric, XdpNative};
        let no_native = Trouble::NoNativeXdp { kind: Some("veth".into()) };
        assert_eq!(refused(XdpNative, libc::EOPNOTSUPP), no_native);
        assert!(matches!(refused(XdpGeneric, libc::EOPNOTSUPP), Trouble::Refused { .. }));
        assert_eq!(refused(XdpNative, libc::ERANGE), Trouble::MtuTooLarge { mtu: 1500 });
        assert!(matches!(refused(TcIngress, libc::EBUSY), Trouble::Refused { .. }));
        assert_eq!(refused(TcIngress, libc::ENODEV), Trouble::Vanished);
    }

    #[test]
    fn an_unforeseen_error_keeps_the_kernel_s_words() {
        let Trouble::Refused { error, .. } = refused(HookPoint::XdpNative, libc::ENOSPC) else {
            panic!("not foreseen")
        };
        assert_eq!(error, "`bpf_link_create` failed: No space left on device (os error 28)");
    }
}
