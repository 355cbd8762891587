//! What the users do: each opens the shop, looks about, presses, downloads a little, and leaves.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use testbed::{
    client::Client,
    edge::{Edge, User},
};

/// Presses before a user leaves and comes back with a new connection.
const VISIT: u32 = 20;
/// A press in so many is followed by a download.
const DOWNLOAD_EVERY: u32 = 10;

/// Users at work; they stop when this is dropped.
pub(super) struct Load<'scope, 'n> {
    stop: &'n AtomicBool,
    users: Vec<ScopedJoinHandle<'scope, Result<u64>>>,
}

impl<'scope, 'n: 'scope> Load<'scope, 'n> {
    /// Starts them; `rate` presses a second, all together. They end once `stop` is set.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        network: &'n Edge,
        rate: u32,
        stop: &'n AtomicBool,
    ) -> Self {
        let pace = Duration::from_secs(1) * network.users.len() as u32 / rate;
        let start = |user: &'n User| scope.spawn(move || work(network, user, pace, stop));
        Self { stop, users: network.users.iter().map(start).collect() }
    }

    /// Lets them finish what they are at; how often they pressed.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let join = |user: ScopedJoinHandle<'_, Result<u64>>| {
            user.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        std::mem::take(&mut self.users).into_iter().map(join).sum()
    }
}

impl Drop for Load<'_, '_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn work(network: &Edge, user: &User, pace: Duration, stop: &AtomicBool) -> Result<u64> {
    let mut pressed = 0;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut shop = Client::over(network.ue.connect(Some(user.address), user.shop())?)?;
        shop.get("/")?;
        for press in 0..VISIT {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += pace;
            shop.post("/api/buttons/buy", "{}")?;
            pressed += 1;
            if press % DOWNLOAD_EVERY == 0 {
                shop.get("/download?bytes=200000")?;
            }
        }
    }
    Ok(pressed)
}
