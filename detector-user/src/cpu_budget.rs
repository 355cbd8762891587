//! A share of processor time that the agent keeps to, if it is told to.
//!
//! Who works (the reader, and the delivery) asks after each piece of work how long to rest. Records
//! then wait in the ring buffer and events in the spool; what no longer fits there is counted where
//! it always is. Each of the two has nearly half of the budget for sure, and may use what the others leave:
//! so neither a flood nor a long spool keeps the other from its work. The rest is for whoever watches the
//! agent, who thus cannot keep either from it, however often they ask. A cgroup's `cpu.max` would
//! stop all threads in the middle of what they do, and the probes of whoever watches the agent too.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use crate::metrics::{Family, Kind, Sample};

/// What was not used in quiet times may be used at once, up to what is due in this time.
const SAVED: Duration = Duration::from_secs(1);
/// What the reader and the delivery have for themselves, each, and what those have who watch the agent.
const EACH: f64 = 0.45;
const ADMIN: f64 = 0.1;

/// Processor time that may be used, and what was. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CpuBudget(Option<Arc<Mutex<Accounts>>>);

impl CpuBudget {
    /// So many cores' time; 0.5 is half a second in each second.
    pub fn cores(cores: f64) -> Self {
        Self(Some(Arc::new(Mutex::new(Accounts::new(cores, Instant::now(), process())))))
    }

    /// How long the calling thread, which reads records, is to leave them where they are.
    pub fn reader_rest(&self) -> Duration {
        self.rest(|accounts, now, process| accounts.reader(now, process, thread()))
    }

    /// How long no new attempt to deliver is to begin.
    pub fn delivery_rest(&self) -> Duration {
        self.rest(Accounts::delivery)
    }

    /// How long the calling thread, which answers whoever watches the agent, is to put off costly
    /// answers.
    pub fn admin_rest(&self) -> Duration {
        self.rest(|accounts, now, process| accounts.admin(now, process, thread()))
    }

    /// How often the budget was used up, for the metrics.
    pub fn family(&self) -> Option<Family> {
        let accounts = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = |who: &str, account: &Account| Sample {
            labels: vec![("who", who.to_owned())],
            value: account.rests,
        };
        Some(Family {
            name: "cpu_rests",
            help: "How often the reader, the delivery or the admin server began to rest, because limits.cpu \
                   was used up",
            unit: None,
            kind: Kind::Counter,
            samples: vec![
                sample("reader", &accounts.reader),
                sample("delivery", &accounts.delivery),
                sample("admin", &accounts.admin),
            ],
        })
    }

    fn rest(&self, ask: impl Fn(&mut Accounts, Instant, Duration) -> Duration) -> Duration {
        let Some(accounts) = &self.0 else { return Duration::ZERO };
        let mut accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut accounts, Instant::now(), process())
    }
}

/// Seconds that may still be used; below zero when too many were.
#[derive(Debug)]
struct Account {
    cores: f64,
    credit: f64,
    at: Instant,
    used: Duration,
    /// How often whoever uses it was told to rest, and whether it was the last time.
    rests: u64,
    resting: bool,
}

impl Account {
    fn new(cores: f64, now: Instant, used: Duration) -> Self {
        Self { cores, credit: 0.0, at: now, used, rests: 0, resting: false }
    }

    /// `used`: in all, since whenever.
    fn settle(&mut self, now: Instant, used: Duration) {
        let due = now.saturating_duration_since(self.at).as_secs_f64() * self.cores;
        let spent = used.saturating_sub(self.used).as_secs_f64();
        self.credit = (self.credit + due - spent).min(SAVED.as_secs_f64() * self.cores);
        (self.at, self.used) = (now, used);
    }

    /// How long to rest, when so much of all that may be used is left.
    fn tell(&mut self, all: &Self) -> Duration {
        let rest = all.rest().min(self.rest());
        self.rests += u64::from(!rest.is_zero() && !self.resting);
        self.resting = !rest.is_zero();
        rest
    }

    /// Until there is something to be used again.
    fn rest(&self) -> Duration {
        Duration::try_from_secs_f64(-self.credit / self.cores).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Accounts {
    all: Account,
    reader: Account,
    delivery: Account,
    admin: Account,
    /// Of the reader's thread, and of the admin server's, when it last asked.
    read: Duration,
    shown: Duration,
}

impl Accounts {
    fn new(cores: f64, now: Instant, used: Duration) -> Self {
        Self {
            all: Account::new(cores, now, used),
            reader: Account::new(cores * EACH, now, Duration::ZERO),
            delivery: Account::new(cores * EACH, now, used),
            admin: Account::new(cores * ADMIN, now, Duration::ZERO),
            read: Duration::ZERO,
            shown: Duration::ZERO,
        }
    }

    fn reader(&mut self, now: Instant, process: Duration, thread: Duration) -> Duration {
        self.read = thread;
        self.all.settle(now, process);
        self.reader.settle(now, thread);
        self.reader.tell(&self.all)
    }

    fn delivery(&mut self, now: Instant, process: Duration) -> Duration {
        self.all.settle(now, process);
        self.delivery.settle(now, process.saturating_sub(self.read + self.shown));
        self.delivery.tell(&self.all)
    }

    fn admin(&mut self, now: Instant, process: Duration, thread: Duration) -> Duration {
        self.shown = thread;
        self.all.settle(now, process);
        self.admin.settle(now, thread);
        self.admin.tell(&self.all)
    }
}

fn process() -> Duration {
    used(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn thread() -> Duration {
    used(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn used(clock: ClockId) -> Duration {
    // The kernel has both clocks since 2.6.
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn work_and_rest_come_to_the_share() {
        let begun = Instant::now();
        let mut account = Account::new(0.25, begun, Duration::ZERO);
        let (mut now, mut used) = (begun, Duration::ZERO);
        for _ in 0..1_000 {
            (now, used) = (now + 3 * MS, used + 3 * MS);
            account.settle(now, used);
            now += account.rest();
            account.settle(now, used);
        }
        let share = used.as_secs_f64() / (now - begun).as_secs_f64();
        assert!((0.249..=0.251).contains(&share), "{share}");
    }

    #[test]
    fn a_quiet_time_is_saved_up_and_no_more_than_a_second_of_it() {
        let begun = Instant::now();
        let mut account = Account::new(0.5, begun, Duration::ZERO);
        let later = begun + Duration::from_secs(3_600);
        account.settle(later, 500 * MS);
        assert_eq!(account.rest(), Duration::ZERO);
        account.settle(later, 1_100 * MS);
        assert_eq!(account.rest().as_millis(), 200);
    }

    /// One works without end; the other must get its part of the budget all the same.
    #[test]
    fn part_of_it_is_each_ones_own() {
        let begun = Instant::now();
        let mut accounts = Accounts::new(0.4, begun, Duration::ZERO);
        let (mut reader_until, mut delivery_until) = (begun, begun);
        let (mut reader, mut delivery) = (Duration::ZERO, Duration::ZERO);
        for step in 1..=10_000 {
            let now = begun + step * MS;
            // The reader has little to do: a tenth of a core.
            if now >= reader_until && step % 10 == 0 {
                reader += MS;
                reader_until = now + accounts.reader(now, reader + delivery, reader);
            }
            if now >= delivery_until {
                delivery += MS;
                delivery_until = now + accounts.delivery(now, reader + delivery);
            }
        }
        let share = |used: Duration| used.as_secs_f64() / 10.0;
        assert!(share(reader) > 0.095, "all that it wanted: {}", share(reader));
        assert!((0.28..0.31).contains(&share(delivery)), "the rest: {}", share(delivery));
        assert!(accounts.delivery.rests > 0 && accounts.reader.rests == 0, "and it is counted");
    }

    /// Answers without end take a tenth, and what is left over.
    #[test]
    fn whoever_watches_takes_nothing_of_the_delivery() {
        let begun = Instant::now();
        let mut accounts = Accounts::new(0.4, begun, Duration::ZERO);
        let (mut admin_until, mut delivery_until) = (begun, begun);
        let (mut admin, mut delivery) = (Duration::ZERO, Duration::ZERO);
        for step in 1..=10_000 {
            let now = begun + step * MS;
            // An answer takes ten times as long as an attempt, and is asked for first.
            if now >= admin_until {
                admin += 10 * MS;
                admin_until = now + accounts.admin(now, admin + delivery, admin);
            }
            // Half of a core, if it may.
            if now >= delivery_until && step % 2 == 0 {
                delivery += MS;
                delivery_until = now + accounts.delivery(now, admin + delivery);
            }
        }
        let share = |used: Duration| used.as_secs_f64() / 10.0;
        assert!(share(delivery) > 0.17, "its own: {}", share(delivery));
        assert!(share(admin + delivery) < 0.41, "in all: {}", share(admin + delivery));
        assert!(accounts.admin.rests > 0);
    }

    #[test]
    fn without_a_budget_nobody_rests() {
        let budget = CpuBudget::default();
        assert_eq!(
            budget.reader_rest() + budget.delivery_rest() + budget.admin_rest(),
            Duration::ZERO
        );
        assert!(budget.family().is_none());
    }
}
