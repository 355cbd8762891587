//! A sink's spool, off the async threads: a disk may make anybody wait.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use cloudevents::Event;

use crate::spool::{
    Appended, Class, Directory, Disk, Given, Limits, Lost, NewRecord, Recovered, Spool, SpoolError,
};

type AnyDisk = Box<dyn Disk>;

/// What the spool gives back of an event.
pub(super) struct Reread {
    pub(super) number: u64,
    pub(super) rule: Arc<str>,
    pub(super) at: SystemTime,
    /// `None` if it is no event any more.
    pub(super) event: Option<Event>,
}

/// A spool that is open. Clones share it.
#[derive(Clone)]
pub struct Kept(Arc<Mutex<Spool<AnyDisk>>>);

/// An event to be kept, with what the spool must know of it.
pub(super) struct ToKeep {
    pub(super) outgoing: Arc<super::Outgoing>,
    pub(super) at: SystemTime,
}

impl Kept {
    /// Opens the spool in this directory, and says what was found there.
    ///
    /// # Errors
    /// It cannot be used, or another process uses it.
    pub fn open(directory: &Path, limits: Limits) -> Result<(Self, Recovered), SpoolError> {
        Self::on(Box::new(Directory::open(directory)?), limits)
    }

    /// On any disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn on(disk: Box<dyn Disk>, limits: Limits) -> Result<(Self, Recovered), SpoolError> {
        let (spool, recovered) = Spool::open(disk, limits)?;
        Ok((Self(Arc::new(Mutex::new(spool))), recovered))
    }

    /// A panic inside leaves counts behind that may be off, and files that are whole.
    fn lock(&self) -> MutexGuard<'_, Spool<AnyDisk>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only the sink's own task calls this and what follows, so the lock is free.
    pub(super) fn waiting(&self) -> u64 {
        self.lock().waiting()
    }

    pub(super) fn waiting_by_rule(&self) -> Vec<(Arc<str>, u64)> {
        self.lock().waiting_by_rule()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    async fn with<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Spool<AnyDisk>) -> R + Send + 'static,
    ) -> R {
        let this = self.clone();
        match tokio::task::spawn_blocking(move || act(&mut this.lock())).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only when the runtime goes down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    pub(super) async fn append(&self, events: Vec<ToKeep>, given: bool) -> Appended {
        self.with(move |spool| {
            let texts: Vec<Vec<u8>> =
                events.iter().map(|to_keep| encode(&to_keep.outgoing.event)).collect();
            let records: Vec<NewRecord<'_>> = events
                .iter()
                .zip(&texts)
                .map(|(to_keep, text)| NewRecord {
                    rule: to_keep.outgoing.rule.name(),
                    class: to_keep.outgoing.class,
                    at: to_keep.at,
                    event: text,
                })
                .collect();
            spool.append(&records, given, SystemTime::now())
        })
        .await
    }

    pub(super) async fn give(&self, most: usize) -> (Vec<Reread>, Vec<Lost>) {
        self.with(move |spool| {
            let (mut events, mut lost) = (Vec::new(), Vec::new());
            for given in spool.give(most, SystemTime::now()) {
                match given {
                    Given::Event { number, rule, at, event } => {
                        let event = serde_json::from_slice(&event).ok();
                        events.push(Reread { number, rule, at, event });
                    }
                    Given::Lost(event) => lost.push(event),
                }
            }
            (events, lost)
        })
        .await
    }

    pub(super) async fn done(&self, numbers: Vec<u64>) -> Result<(), SpoolError> {
        self.with(move |spool| spool.done(&numbers)).await
    }

    pub(super) async fn expire(&self) -> Vec<Lost> {
        self.with(|spool| spool.expire(SystemTime::now())).await
    }

    pub(super) async fn sync(&self) -> Result<(), SpoolError> {
        self.with(Spool::sync).await
    }
}

/// The JSON format of CloudEvents 1.0, which people can read too.
fn encode(event: &Event) -> Vec<u8> {
    // Maps with text keys and numbers that are finite always can be.
    serde_json::to_vec(event).unwrap_or_default()
}

/// How much an event of a rule with this priority matters.
impl From<i32> for Class {
    fn from(priority: i32) -> Self {
        match priority.signum() {
            -1 => Self::Low,
            0 => Self::Normal,
            _ => Self::High,
        }
    }
}
