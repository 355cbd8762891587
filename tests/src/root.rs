//! Tests that need root say so and are counted as skipped, never as passed in silence.

/// What a skipped test prints; `cargo xtask test` counts these lines.
pub const SKIPPED: &str = "SKIPPED:";

/// Whether this process may make namespaces and load kernel programs.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Returns from the test when it does not run as root, with a line that says so.
///
/// ```no_run
/// # fn test() {
/// testbed::need_root!();
/// # }
/// ```
#[macro_export]
macro_rules! need_root {
    () => {
        if !$crate::root::is_root() {
            $crate::skip!("needs root (namespaces, kernel programs)");
        }
    };
}

/// Returns from the test, which is then counted as skipped, with the reason.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        // Straight to the descriptor: the test harness swallows what `println!` prints.
        $crate::root::say_skipped(module_path!(), &format!($($reason)*));
        return $crate::root::TestResult::skipped();
    }};
}

/// What tests return.
pub trait TestResult {
    /// What a skipped test returns; that it was skipped is known by its line.
    fn skipped() -> Self;
}

impl TestResult for () {
    fn skipped() -> Self {}
}

impl<E> TestResult for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

/// Prints the line for [`skip!`].
pub fn say_skipped(module: &str, reason: &str) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    // One write of a whole line, so that parallel tests do not mix theirs.
    let line = format!("{SKIPPED} {module}::{test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
