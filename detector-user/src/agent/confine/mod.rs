//! What the agent gives up once it has what it needs: capabilities, and system calls that it never
//! makes. Both are each thread's own and go on to the threads that it starts, so this is done while
//! there is one.

mod system_calls;

use std::collections::BTreeMap;

use anyhow::Context as _;
use caps::{CapSet, Capability, CapsHashSet};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use tracing::{debug, warn};

/// Until devices are attached to. `SYS_ADMIN` and `SYS_PTRACE` are not needed: with them the program
/// and the process that hold a taken slot can be named. `SYS_RESOURCE` lets maps be made where the
/// kernel (before 5.11) counts them against a limit of locked memory. Files are read with the rights
/// of the user alone, from the start: what can be read then can be read at every reload.
pub(super) const TO_ATTACH: [Capability; 6] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_RESOURCE,
];

/// From then on. `NET_ADMIN`: devices come, and are attached to. `BPF`: rules are written to maps,
/// which kernels before 5.19 permit to nobody else where `kernel.unprivileged_bpf_disabled` is set.
pub(super) const TO_WORK: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// Gives up all capabilities but these, for good: no program that it could start has more.
///
/// # Errors
/// When the kernel refuses to take them.
pub(super) fn keep(wanted: &[Capability]) -> anyhow::Result<()> {
    let had = caps::read(None, CapSet::Permitted).context("cannot read capabilities")?;
    let mut kept: CapsHashSet =
        had.intersection(&wanted.iter().copied().collect()).copied().collect();
    if !had.contains(&Capability::CAP_BPF) && had.contains(&Capability::CAP_SYS_ADMIN) {
        // Which stands in for it (capabilities(7)).
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    // Refused without CAP_SETPCAP; then they were restricted by whoever started the agent.
    for capability in caps::all() {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    let give_up = || {
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)
    };
    give_up().context("cannot give up capabilities")?;
    debug!("capabilities: {kept:?}");
    Ok(())
}

/// Refuses all system calls that the agent never makes with EPERM. A kernel without seccomp is
/// warned of, and no reason not to work.
pub(super) fn filter_system_calls() {
    let filtered = filter().and_then(|filter| {
        seccompiler::apply_filter(&filter).context("the kernel does not take the filter")
    });
    if let Err(error) = filtered {
        warn!("system calls are not filtered: {error:#}");
    }
}

fn filter() -> anyhow::Result<BpfProgram> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules: BTreeMap<i64, Vec<_>> =
        system_calls::ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::{io, process::Command, thread};

    use super::*;

    /// What a thread may do; others are not touched.
    fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
    }

    #[test]
    fn filtered_system_calls_are_refused_and_the_others_work() {
        let (started, read) = on_a_thread(|| {
            filter_system_calls();
            let started = Command::new("/bin/true").status();
            (started.map_err(|error| error.kind()), std::fs::read("/proc/self/stat").is_ok())
        });
        assert_eq!(started.unwrap_err(), io::ErrorKind::PermissionDenied);
        assert!(read);
        assert!(Command::new("/bin/true").status().is_ok(), "this thread is free");
    }

    /// Each with arguments that it would refuse for another reason: nothing happens if it is let through.
    const NEVER: [(&str, libc::c_long); 16] = [
        ("execve", libc::SYS_execve),
        ("execveat", libc::SYS_execveat),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("setns", libc::SYS_setns),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("clock_settime", libc::SYS_clock_settime),
        ("settimeofday", libc::SYS_settimeofday),
        ("setresuid", libc::SYS_setresuid),
        ("keyctl", libc::SYS_keyctl),
        ("perf_event_open", libc::SYS_perf_event_open),
    ];

    #[test]
    fn no_program_process_mount_module_clock_user_or_key_is_within_reach() {
        let errors = || {
            NEVER.map(|(name, number)| {
                // SAFETY: -1 is no address, descriptor, process or clock, so each call ends with an
                // error before it does anything.
                let result = unsafe { libc::syscall(number, -1, -1, -1, -1, -1, -1) };
                (name, result, io::Error::last_os_error().raw_os_error())
            })
        };
        for (name, result, error) in on_a_thread(|| {
            filter_system_calls();
            errors()
        }) {
            assert_eq!((result, error), (-1, Some(libc::EPERM)), "{name}");
        }
    }

    #[test]
    fn capabilities_that_are_not_kept_are_gone_for_good() {
        let left = on_a_thread(|| {
            keep(&[Capability::CAP_NET_ADMIN]).unwrap();
            // What is gone does not come back.
            keep(&TO_ATTACH).unwrap();
            [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient]
                .map(|set| caps::read(None, set).unwrap())
        });
        let all = left.into_iter().flatten();
        assert!(all.into_iter().all(|capability| capability == Capability::CAP_NET_ADMIN));
    }
}
