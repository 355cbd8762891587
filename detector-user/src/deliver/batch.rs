//! Several events in one request, in the batched content mode of the CloudEvents HTTP binding (section
//! 3.3), for sinks that declare it.
//!
//! The first event of a batch waits a little for others, and then sends for all. The lane has only one
//! event of each UE under way, so a batch has one of each UE at most, and their order is kept.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cloudevents::Event;
use futures::future::join_all;
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::{Failure, retry::is_retryable, sink::unsendable};

type Answer = Result<(), Failure>;

/// An event, as it is written, and who waits for its end.
struct Waiting {
    text: Vec<u8>,
    done: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Batch {
    events: Mutex<Vec<Waiting>>,
    full: Notify,
}

impl Batch {
    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes batches of a sink's events.
pub(super) struct Batcher {
    most: usize,
    linger: Duration,
    /// What others may still join.
    open: Mutex<Option<Arc<Batch>>>,
}

impl Batcher {
    pub(super) fn new(most: usize, linger: Duration) -> Self {
        Self { most: most.max(1), linger, open: Mutex::default() }
    }

    /// Sends the event with others; `post` takes the body of one request.
    pub(super) async fn attempt<P, F>(&self, event: &Event, post: P) -> Answer
    where
        P: Fn(Vec<u8>) -> F,
        F: Future<Output = Answer>,
    {
        let text = serde_json::to_vec(event).map_err(unsendable)?;
        let (done, mut ended) = oneshot::channel();
        let (batch, first) = self.join(Waiting { text, done });
        if first {
            let leading = Leading { batcher: self, batch: &batch };
            // Full or not: it goes now.
            let _ = timeout(self.linger, batch.full.notified()).await;
            drop(leading);
            let events = std::mem::take(&mut *batch.lock());
            send(events, &post).await;
            return ended.try_recv().unwrap_or_else(|_| Err(given_up()));
        }
        ended.await.unwrap_or_else(|_| Err(given_up()))
    }

    /// With the batch that it is in, and whether it is the first there.
    fn join(&self, waiting: Waiting) -> (Arc<Batch>, bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let first = open.is_none();
        let batch = open.get_or_insert_default().clone();
        let mut events = batch.lock();
        events.push(waiting);
        if events.len() >= self.most {
            *open = None;
            batch.full.notify_one();
        }
        drop(events);
        (batch, first)
    }
}

/// Nobody joins a batch whose first event has gone, or was given up.
struct Leading<'a> {
    batcher: &'a Batcher,
    batch: &'a Arc<Batch>,
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let mut open = self.batcher.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|open| Arc::ptr_eq(open, self.batch)) {
            *open = None;
        }
    }
}

/// A batch that is refused for what it holds is halved until the event is found that is refused
/// alone: 2n - 1 requests at most.
async fn send<P, F>(events: Vec<Waiting>, post: &P)
where
    P: Fn(Vec<u8>) -> F,
    F: Future<Output = Answer>,
{
    let mut parts = vec![events];
    while !parts.is_empty() {
        let answers = join_all(parts.iter().map(|part| post(body(part)))).await;
        let mut halves = Vec::new();
        for (mut part, answer) in parts.into_iter().zip(answers) {
            if part.len() > 1 && answer.as_ref().is_err_and(may_be_one_events_fault) {
                let second = part.split_off(part.len() / 2);
                halves.extend([part, second]);
                continue;
            }
            for waiting in part {
                // Fails when nobody waits any longer.
                let _ = waiting.done.send(answer.clone());
            }
        }
        parts = halves;
    }
}

fn may_be_one_events_fault(failure: &Failure) -> bool {
    match failure {
        Failure::Answer { status, .. } => !is_retryable(*status),
        Failure::Closed(_)
        | Failure::Network(_)
        | Failure::Timeout
        | Failure::Credentials(_)
        | Failure::Io(_)
        | Failure::Unavailable(_)
        | Failure::Refused(_)
        | Failure::Unsendable(_) => false,
    }
}

/// CloudEvents JSON batch format 1.0, section 4.
fn body(events: &[Waiting]) -> Vec<u8> {
    let texts: Vec<&[u8]> = events.iter().map(|waiting| &waiting.text[..]).collect();
    [&b"["[..], &texts.join(&b','), b"]"].concat()
}

/// Only when the whole lane ends.
fn given_up() -> Failure {
    Failure::Network("the batch was given up".to_owned())
}
