//! Who holds a device's XDP slot: looked up only when somebody does.

use std::{fmt, fs, path::Path};

use aya::programs::loaded_programs;
use serde::Serialize;

use super::device::{XdpSlot, XdpSlotMode};

/// The program in a slot, as far as it can be found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotHolder {
    /// Its number in the kernel.
    pub program_id: u32,
    /// Who runs it.
    pub mode: XdpSlotMode,
    /// Its name, at most 15 characters; the kernel tells only `CAP_SYS_ADMIN`.
    pub name: Option<String>,
    /// Number and name of a process that has it open. Programs attached by netlink or pinned
    /// have none; other users' processes can be looked into by root only.
    pub process: Option<(u32, String)>,
}

impl SlotHolder {
    /// Finds out about the program in `slot`.
    pub fn of(slot: XdpSlot) -> Self {
        Self {
            program_id: slot.program_id,
            mode: slot.mode,
            name: program_name(slot.program_id),
            process: process_with(slot.program_id),
        }
    }
}

impl fmt::Display for SlotHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "`{name}` (id {}, ", self.program_id)?,
            None => write!(f, "a program (id {}, ", self.program_id)?,
        }
        f.write_str(self.mode.as_str())?;
        match &self.process {
            Some((pid, comm)) => write!(f, ", held by {comm}, pid {pid})"),
            None => f.write_str(")"),
        }
    }
}

fn program_name(id: u32) -> Option<String> {
    let program = loaded_programs().map_while(Result::ok).find(|program| program.id() == id)?;
    program.name_as_str().filter(|name| !name.is_empty()).map(Into::into)
}

/// Looks through /proc for a file descriptor of the program, or of a link to it; both say
/// `prog_id:` in their fdinfo (bpf_prog_show_fdinfo, bpf_link_show_fdinfo).
fn process_with(id: u32) -> Option<(u32, String)> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find_map(|pid| {
        let process = Path::new("/proc").join(pid.to_string());
        holds(&process, id).then(|| {
            let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
            (pid, comm.trim_end().to_string())
        })
    })
}

fn holds(process: &Path, id: u32) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false; // gone, or not ours to look into
    };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("anon_inode:bpf"))
            && fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()))
                .is_ok_and(|info| prog_id(&info) == Some(id))
    })
}

fn prog_id(fdinfo: &str) -> Option<u32> {
    fdinfo.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_program_of_a_link_from_fdinfo() {
        let link = "pos:\t0\nflags:\t02000000\nlink_type:\txdp\nlink_id:\t3\nprog_tag:\t3b\n\
                    prog_id:\t77\nifindex:\t5\n";
        assert_eq!(prog_id(link), Some(77));
        assert_eq!(prog_id("pos:\t0\n"), None);
    }

    #[test]
    fn an_unknown_name_is_not_made_up() {
        let holder =
            SlotHolder { program_id: 9, mode: XdpSlotMode::Generic, name: None, process: None };
        assert_eq!(holder.to_string(), "a program (id 9, generic)");
    }
}
