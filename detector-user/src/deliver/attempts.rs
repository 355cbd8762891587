//! The attempts that are under way at a sink. They run in the sink's own task: a task for each would be woken
//! for itself, and wake that one when it ends.

use std::{
    any::Any, collections::VecDeque, future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either, select},
    stream::FuturesUnordered,
};
use tokio::time::Instant;

use super::{Failure, Outgoing, Sink};

/// One that has ended.
pub(super) struct Ended {
    pub(super) key: u64,
    pub(super) result: Result<(), Failure>,
    pub(super) took: Duration,
}

/// Dropping it ends them all.
#[derive(Default)]
pub(super) struct Attempts {
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// While the task waited for something else.
    ended: VecDeque<Ended>,
}

impl Attempts {
    pub(super) fn len(&self) -> usize {
        self.under_way.len() + self.ended.len()
    }

    pub(super) fn start(&mut self, sink: Arc<dyn Sink>, key: u64, outgoing: Arc<Outgoing>) {
        let attempt = async move {
            let begin = Instant::now();
            let attempt = AssertUnwindSafe(async { sink.attempt(&outgoing.event).await });
            let result = attempt.catch_unwind().await.unwrap_or_else(|panic| {
                Err(Failure::Unsendable(format!("a bug in the sink: {}", said(&*panic))))
            });
            Ended { key, result, took: begin.elapsed() }
        };
        self.under_way.push(attempt.boxed());
    }

    /// The next that ends; `None` if none is under way. What is cancelled here loses nothing.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        match self.ended.pop_front() {
            Some(ended) => Some(ended),
            None => self.under_way.next().await,
        }
    }

    /// Waits for something else, a disk for instance, which holds up no attempt.
    pub(super) async fn meanwhile<R>(&mut self, other: impl Future<Output = R>) -> R {
        let mut other = pin!(other);
        loop {
            if self.under_way.is_empty() {
                return other.await;
            }
            match select(&mut other, self.under_way.next()).await {
                Either::Left((result, _)) => return result,
                Either::Right((ended, _)) => self.ended.extend(ended),
            }
        }
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panicked")
}
