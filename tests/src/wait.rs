//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks again until there is an answer. For what gives no event to wait for (a port of another
/// process, a device that another program makes).
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut answer: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = answer()? {
            return Ok(value);
        }
        if begun.elapsed() >= limit {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
