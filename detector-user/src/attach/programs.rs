//! The kernel object's programs: their names, and loading them once.

use aya::{
    Ebpf,
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use serde::Serialize;

use super::{
    privileges::{Capabilities, Capability, KernelFeatures},
    trouble::{AttachError, Trouble},
};

/// Lines of the verifier's log that are shown: the last ones hold the reason.
const LOG_LINES: usize = 12;

/// A program of the kernel object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "&'static str")]
pub enum KernelProgram {
    /// XDP, packets start with Ethernet and lie in one page.
    XdpEthernet,
    /// XDP, packets start with IP; generic XDP only.
    XdpIp,
    /// XDP, packets start with Ethernet and may span several buffers (`xdp.frags`).
    XdpFragsEthernet,
    /// TC, both ways, packets start with Ethernet.
    TcEthernet,
    /// TC, both ways, packets start with IP.
    TcIp,
}

impl KernelProgram {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::XdpEthernet, Self::XdpIp, Self::XdpFragsEthernet, Self::TcEthernet, Self::TcIp];

    /// Its name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpEthernet => "detector_xdp_ethernet",
            Self::XdpIp => "detector_xdp_ip",
            Self::XdpFragsEthernet => "detector_xdp_frags_ethernet",
            Self::TcEthernet => "detector_tc_ethernet",
            Self::TcIp => "detector_tc_ip",
        }
    }

    /// XDP, or else TC?
    pub const fn is_xdp(self) -> bool {
        match self {
            Self::XdpEthernet | Self::XdpIp | Self::XdpFragsEthernet => true,
            Self::TcEthernet | Self::TcIp => false,
        }
    }
}

impl From<KernelProgram> for &'static str {
    fn from(program: KernelProgram) -> Self {
        program.name()
    }
}

/// Loads every program this kernel can run; loaded ones stay as they are. Do this before maps
/// are taken out of `ebpf` and dropped: instructions refer to maps by file descriptor until then.
///
/// All at once: the verifier takes a second or so for each, and holds no lock for a caller that has
/// CAP_BPF (since Linux 5.2).
pub fn load(ebpf: &mut Ebpf, kernel: &KernelFeatures) -> Result<(), AttachError> {
    let wanted = |program: &KernelProgram| kernel.xdp || !program.is_xdp();
    for program in KernelProgram::ALL.into_iter().filter(wanted) {
        find(ebpf, program)?;
    }
    std::thread::scope(|scope| {
        let with_name = |name: &str| KernelProgram::ALL.into_iter().find(|it| it.name() == name);
        let mut loading = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            if let Some(known) = with_name(name).filter(wanted) {
                loading.push((known, scope.spawn(move || load_one(program))));
            }
        }
        loading.into_iter().try_for_each(|(program, thread)| {
            let loaded = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            loaded.map_err(|error| load_error(program.name(), error))
        })
    })
}

fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    let loaded = match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    match loaded {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        loaded => loaded,
    }
}

/// An XDP program of the object.
pub(super) fn xdp(ebpf: &mut Ebpf, program: KernelProgram) -> Result<&mut Xdp, AttachError> {
    find(ebpf, program)?.try_into().map_err(|_| AttachError::NoSuchProgram(program.name()))
}

/// A TC program of the object.
pub(super) fn tc(
    ebpf: &mut Ebpf,
    program: KernelProgram,
) -> Result<&mut SchedClassifier, AttachError> {
    find(ebpf, program)?.try_into().map_err(|_| AttachError::NoSuchProgram(program.name()))
}

fn find(ebpf: &mut Ebpf, program: KernelProgram) -> Result<&mut Program, AttachError> {
    ebpf.program_mut(program.name()).ok_or(AttachError::NoSuchProgram(program.name()))
}

fn load_error(program: &'static str, error: ProgramError) -> AttachError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let missing = Capabilities::current().map(Capabilities::missing).unwrap_or_default();
            refused(program, io_error, &verifier_log.to_string(), missing)
        }
        error => AttachError::Prepare { program, error: Box::new(error) },
    }
}

fn refused(
    program: &'static str,
    error: std::io::Error,
    log: &str,
    missing: Vec<Capability>,
) -> AttachError {
    let hint = if missing.is_empty() {
        String::new()
    } else {
        let notice = Trouble::MissingCapabilities { missing }.notice(program);
        format!(" ({}; {})", notice.what, notice.remedy)
    };
    let log = match last_lines(log) {
        empty if empty.is_empty() => String::new(),
        lines => format!("\nlast lines of the verifier's log:\n{lines}"),
    };
    AttachError::Load { program, error, hint, log }
}

/// The reason and the instructions before it; the first lines are of no use.
fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.trim_end().lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines[from..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_log_is_kept_and_a_short_log_whole() {
        let long: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let kept = last_lines(&long);
        assert_eq!(kept.lines().count(), LOG_LINES);
        assert!(kept.starts_with("line 88") && kept.ends_with("line 99"));
        assert_eq!(last_lines("a\nb\n"), "a\nb");
        assert_eq!(last_lines(""), "");
    }

    #[test]
    fn a_refused_program_shows_the_verifier_s_reason() {
        let error = std::io::Error::from_raw_os_error(libc::EINVAL);
        let text = refused("detector_tc_ip", error, "R1 is not a scalar\n", vec![]).to_string();
        assert!(text.contains("`detector_tc_ip`: Invalid argument"), "{text}");
        assert!(text.ends_with("R1 is not a scalar"), "{text}");
    }

    #[test]
    fn a_refusal_for_want_of_privileges_names_them() {
        let error = std::io::Error::from_raw_os_error(libc::EPERM);
        let text = refused("detector_tc_ip", error, "", vec![Capability::Bpf]).to_string();
        assert!(text.contains("the process lacks CAP_BPF") && !text.contains("log"), "{text}");
    }
}
