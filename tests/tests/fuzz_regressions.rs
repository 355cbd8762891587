//! Inputs that a fuzzing program once failed on, and the seeds it begins with, without a fuzzer.
//! A file lies in `tests/fuzz/regressions/<target>/` under a name that says what was wrong.

use std::{fs, path::Path};

#[expect(unreachable_pub, reason = "a library of its own, elsewhere")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// Runs every file under `directory`; gives how many there were.
fn replay(directory: &Path) -> usize {
    let mut count = 0;
    for (target, _) in fuzz::TARGETS {
        let Ok(files) = fs::read_dir(directory.join(target)) else { continue };
        for file in files {
            let path = file.expect("an entry").path();
            println!("{}", path.display());
            fuzz::run(target, &fs::read(&path).expect("a file"));
            count += 1;
        }
    }
    count
}

fn fuzz_directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

#[test]
fn what_once_failed_does_not_fail_again() {
    replay(&fuzz_directory().join("regressions"));
}

#[test]
fn seeds_are_read() {
    assert!(replay(&fuzz_directory().join("seeds")) > 0);
}

#[test]
fn every_directory_belongs_to_a_target() {
    for kind in ["regressions", "seeds"] {
        for directory in fs::read_dir(fuzz_directory().join(kind)).expect("it is there") {
            let name = directory.expect("an entry").file_name();
            let known = fuzz::TARGETS.iter().any(|(target, _)| name.to_str() == Some(*target));
            assert!(known, "{kind}/{}: no such target", name.display());
        }
    }
}

#[test]
fn every_target_has_its_program() {
    let manifest = fs::read_to_string(fuzz_directory().join("Cargo.toml")).expect("a manifest");
    for (target, _) in fuzz::TARGETS {
        let program = format!("path = \"targets/{target}.rs\"");
        assert!(manifest.contains(&program), "{target}: not in Cargo.toml");
        let source = fs::read_to_string(fuzz_directory().join(format!("targets/{target}.rs")));
        assert!(source.expect("a program").contains(&format!("\"{target}\"")), "{target}");
    }
}
