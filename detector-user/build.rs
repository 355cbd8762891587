//! Tells the library where the kernel programs are, if `cargo xtask build` has made them.
//!
//! Without them everything still compiles, so that `cargo build` and rust-analyzer work with
//! nothing but a Rust toolchain; `source::object` then says at run time what to do.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const OBJECT: &str = "bpf/detector.bpf.o";

/// The files that say what lies in the kernel's maps: see `pin::layout`.
const LAYOUT: [&str; 23] = [
    "../detector-common/src/burst.rs",
    "../detector-common/src/counter.rs",
    "../detector-common/src/cpu.rs",
    "../detector-common/src/dns_name.rs",
    "../detector-common/src/event.rs",
    "../detector-common/src/http.rs",
    "../detector-common/src/lookup.rs",
    "../detector-common/src/marks.rs",
    "../detector-common/src/packet.rs",
    "../detector-common/src/parse/link.rs",
    "../detector-common/src/parse/mod.rs",
    "../detector-common/src/rule.rs",
    "../detector-common/src/state.rs",
    "../detector-ebpf/src/memory.rs",
    "../detector-ebpf/src/ring.rs",
    "../detector-ebpf/src/tables.rs",
    "src/source/clock_notes.rs",
    "src/source/deep_notes.rs",
    "src/source/device_notes.rs",
    "src/source/flow_notes.rs",
    "src/source/ring_notes.rs",
    "src/source/rule_notes.rs",
    "src/source/session_notes.rs",
];

fn main() {
    println!("cargo:rustc-check-cfg=cfg(kernel_programs)");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=DETECTOR_LAYOUT={:016x}", layout());
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    match find(&out_dir) {
        Some(object) => {
            println!("cargo:rerun-if-changed={}", object.display());
            println!("cargo:rustc-cfg=kernel_programs");
            println!("cargo:rustc-env=DETECTOR_BPF_OBJECT={}", object.display());
        }
        None => watch_for_it(&out_dir),
    }
}

/// FNV-1a over the files' lines without comments and indentation.
fn layout() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in LAYOUT {
        println!("cargo:rerun-if-changed={file}");
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        for byte in code.flat_map(|line| line.bytes().chain([b'\n'])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// The target directory is above OUT_DIR, at a depth that depends on `--target`; rust-analyzer may
/// use a directory inside it.
fn find(out_dir: &Path) -> Option<PathBuf> {
    out_dir.ancestors().map(|dir| dir.join(OBJECT)).find(|object| object.is_file())
}

/// Cargo takes a missing file for a changed one and would build the agent anew every time; so this
/// watches the (empty) directory instead, which changes when the object is put there.
fn watch_for_it(out_dir: &Path) {
    // <target>/<profile>/build/<package>-<hash>/out
    if let Some(target) = out_dir.ancestors().nth(4) {
        let directory = target.join("bpf");
        if fs::create_dir_all(&directory).is_ok() {
            println!("cargo:rerun-if-changed={}", directory.display());
        }
    }
}
