//! Bad files beside what is said about them: `testdata/refused/*.yaml`, each ending in lines
//! `#! message`. `UPDATE_GOLDEN=1 cargo test` rewrites those lines; read the diff.

use std::{fs, path::Path};

use super::Problems;

const MARK: &str = "#! ";

/// Compares every file whose name begins with `prefix`; returns how many there are.
pub(crate) fn check(prefix: &str, refuse: impl Fn(&str, &[u8]) -> Option<Problems>) -> usize {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/refused");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with(prefix) {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(&path).unwrap();
        let input: String = text.split_inclusive('\n').filter(|l| !l.starts_with(MARK)).collect();
        let said =
            refuse(&name, input.as_bytes()).map_or_else(|| "nothing".to_owned(), |p| p.to_string());
        let said: String = said.lines().map(|line| format!("{MARK}{line}\n")).collect();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, format!("{input}{said}")).unwrap();
        } else {
            let expected = text.lines().filter(|line| line.starts_with(MARK));
            assert_eq!(said.lines().collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{name}");
        }
    }
    count
}
