//! Tells the library where the kernel programs are, if `cargo xtask build` has made them.
//!
//! Without them everything still compiles, so that `cargo build` and rust-analyzer work with
//! nothing but a Rust toolchain; `source::object` then says at run time what to do.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const OBJECT: &str = "bpf/detector.bpf.o";

fn main() {
    println!("cargo:rustc-check-cfg=cfg(kernel_programs)");
    println!("cargo:rerun-if-changed=build.rs");
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
