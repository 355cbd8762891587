//! Several targets at a time, a line for each when it ends.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Result;

/// Runs each target, `jobs` at a time, and says how each ended. Returns those that failed, in the
/// order they are given.
pub(super) fn all<R: fmt::Display>(
    targets: &[String],
    jobs: usize,
    run: impl Fn(&str) -> Result<R> + Sync,
    say: impl Fn(String) + Sync,
) -> Vec<&str> {
    let next = AtomicUsize::new(0);
    let ended = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some((at, target)) = take(&next, targets) {
            let result = run(target);
            let ended = ended.fetch_add(1, Ordering::Relaxed) + 1;
            let done = format!("    [{ended:>2}/{}] {target}", targets.len());
            match result {
                Ok(report) => say(format!("{done}: {report}")),
                Err(error) => {
                    say(format!("{done}: FAILED: {error:#}"));
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(at);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    failed.into_iter().map(|at| targets[at].as_str()).collect()
}

/// The next target, and its place.
fn take<'t>(next: &AtomicUsize, targets: &'t [String]) -> Option<(usize, &'t str)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    targets.get(at).map(|target| (at, target.as_str()))
}

#[cfg(test)]
mod tests {
    use std::{sync::Condvar, time::Duration};

    use anyhow::bail;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn targets(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_runs_once_and_those_that_fail_are_named_in_order() {
        let targets = targets(&["a", "b", "c", "d"]);
        let said = Mutex::new(Vec::new());
        let run = |target: &str| match target {
            "b" | "d" => bail!("found something"),
            _ => Ok("nothing"),
        };
        let failed = all(&targets, 2, run, |line| said.lock().unwrap().push(line));
        assert_eq!(failed, ["b", "d"]);
        let said = said.into_inner().unwrap();
        for (target, end) in [("a", "nothing"), ("b", "FAILED: found something"), ("c", "nothing")]
        {
            let line = format!("] {target}: {end}");
            assert_eq!(said.iter().filter(|said| said.ends_with(&line)).count(), 1, "{said:?}");
        }
        assert!(said.iter().any(|line| line.contains("[ 4/4]")), "{said:?}");
    }

    #[test]
    fn as_many_run_at_a_time_as_there_are_jobs() {
        let targets = targets(&["a", "b"]);
        let arrived = Mutex::new(0);
        let more = Condvar::new();
        let run = |_: &str| {
            let mut arrived = arrived.lock().unwrap();
            *arrived += 1;
            more.notify_all();
            let alone = |arrived: &mut i32| *arrived < 2;
            let (_arrived, waited) = more.wait_timeout_while(arrived, LIMIT, alone).unwrap();
            if waited.timed_out() { bail!("nobody came") } else { Ok("met the other") }
        };
        assert_eq!(all(&targets, 2, run, drop), [""; 0]);
    }
}
