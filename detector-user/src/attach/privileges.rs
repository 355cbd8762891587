//! What the kernel can do and what this process may do.

use std::{fmt, io};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
    util::KernelVersion,
};
use serde::Serialize;

use super::trouble::Trouble;

/// A kernel release, as far as features go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Release(pub u8, pub u8);

impl From<Release> for String {
    fn from(release: Release) -> Self {
        release.to_string()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// `BPF_MAP_TYPE_RINGBUF`; nothing works without.
pub const RING_BUFFER: Release = Release(5, 8);
/// `bpf_xdp_load_bytes` and `xdp.frags`: what the XDP programs are written with.
pub const XDP_LOAD_BYTES: Release = Release(5, 18);
/// TC programs as BPF links (tcx).
pub const TCX: Release = Release(6, 6);

/// What the running kernel can do for Detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KernelFeatures {
    /// The release they were worked out from.
    pub release: Release,
    /// The ring buffer that carries records (5.8).
    pub ring_buffer: bool,
    /// The XDP programs load (5.18); XDP links (5.9) are there too, then.
    pub xdp: bool,
    /// TC programs attach as links that go with their owner (6.6); else by netlink.
    pub tcx: bool,
}

impl KernelFeatures {
    /// What a release has when nobody patched it.
    pub fn of(release: Release) -> Self {
        Self {
            release,
            ring_buffer: release >= RING_BUFFER,
            xdp: release >= XDP_LOAD_BYTES,
            tcx: release >= TCX,
        }
    }

    /// What the running kernel has. Distributions bring features to old releases (RHEL 9 calls
    /// itself 5.14), so what the number denies is probed, which takes privileges.
    pub fn detect() -> io::Result<Self> {
        let code = KernelVersion::current().map_err(|error| io::Error::other(error.to_string()))?;
        // LINUX_VERSION_CODE: a byte each for major and minor.
        let [_, major, minor, _] = code.code().to_be_bytes();
        let mut features = Self::of(Release(major, minor));
        if !features.xdp {
            let probe = is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_load_bytes);
            features.xdp = probe.unwrap_or(false);
        }
        Ok(features)
    }
}

/// A capability of capabilities(7) that the agent needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Capability {
    /// Load programs and create maps.
    #[serde(rename = "CAP_BPF")]
    Bpf,
    /// Attach them to devices.
    #[serde(rename = "CAP_NET_ADMIN")]
    NetAdmin,
    /// Let programs compare packet pointers (the verifier's `allow_ptr_leaks`).
    #[serde(rename = "CAP_PERFMON")]
    Perfmon,
}

impl Capability {
    /// All that are needed.
    pub const NEEDED: [Self; 3] = [Self::Bpf, Self::NetAdmin, Self::Perfmon];

    /// The number in linux/capability.h.
    const fn bit(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }

    /// The name in capabilities(7).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
        }
    }
}

/// Capabilities in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Stands in for `CAP_BPF` and `CAP_PERFMON`, which were split off it in 5.8.
    const SYS_ADMIN: u32 = 21;

    /// Those of this process.
    pub fn current() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        Self::from_status(&status)
            .ok_or_else(|| io::Error::other("no CapEff line in /proc/self/status"))
    }

    /// Reads the `CapEff` line of a /proc/PID/status (proc(5)).
    pub fn from_status(status: &str) -> Option<Self> {
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    /// Which of the needed ones are not there.
    pub fn missing(self) -> Vec<Capability> {
        let has = |bit: u32| self.0 & (1 << bit) != 0;
        let lacks = |capability: &Capability| match capability {
            Capability::NetAdmin => !has(capability.bit()),
            Capability::Bpf | Capability::Perfmon => {
                !has(capability.bit()) && !has(Self::SYS_ADMIN)
            }
        };
        Capability::NEEDED.into_iter().filter(lacks).collect()
    }
}

/// What stands in the way of attaching anything at all, before anything is tried.
pub fn check(features: &KernelFeatures, capabilities: Capabilities) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    if !features.ring_buffer {
        troubles.push(Trouble::KernelTooOld { running: features.release, needed: RING_BUFFER });
    }
    let missing = capabilities.missing();
    if !missing.is_empty() {
        troubles.push(Trouble::MissingCapabilities { missing });
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(cap_eff: &str) -> Capabilities {
        let text = format!("Name:\tdetector\nCapPrm:\tffffffff\nCapEff:\t{cap_eff}\nCapBnd:\t0\n");
        Capabilities::from_status(&text).unwrap()
    }

    #[test]
    fn each_release_brings_its_feature() {
        let features = |major, minor| {
            let f = KernelFeatures::of(Release(major, minor));
            (f.ring_buffer, f.xdp, f.tcx)
        };
        assert_eq!(features(5, 4), (false, false, false));
        assert_eq!(features(5, 10), (true, false, false));
        assert_eq!(features(5, 18), (true, true, false));
        assert_eq!(features(6, 1), (true, true, false));
        assert_eq!(features(6, 6), (true, true, true));
        assert_eq!(features(7, 0), (true, true, true));
    }

    #[test]
    fn root_misses_nothing_and_a_user_everything() {
        assert_eq!(status("000001ffffffffff").missing(), []);
        assert_eq!(status("0000000000000000").missing(), Capability::NEEDED);
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_and_perfmon_only() {
        assert_eq!(status("0000000000200000").missing(), [Capability::NetAdmin]);
    }

    #[test]
    fn the_three_least_capabilities_suffice() {
        // 1 << 12 | 1 << 38 | 1 << 39
        assert_eq!(status("000000c000001000").missing(), []);
        assert_eq!(status("0000008000001000").missing(), [Capability::Perfmon]);
    }

    #[test]
    fn a_status_without_the_line_is_no_answer() {
        assert_eq!(Capabilities::from_status("Name:\tx\nCapEff:\tzz\n"), None);
        assert_eq!(Capabilities::from_status(""), None);
    }

    #[test]
    fn the_check_names_what_is_wrong() {
        let old = KernelFeatures::of(Release(5, 4));
        let troubles = check(&old, status("0000000000000000"));
        let text: Vec<_> = troubles.iter().map(|t| t.notice("-").to_string()).collect();
        assert!(text[0].contains("5.4") && text[0].contains("5.8"), "{text:?}");
        assert!(text[1].contains("CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"), "{text:?}");
        assert_eq!(check(&KernelFeatures::of(TCX), status("000001ffffffffff")), []);
    }
}
