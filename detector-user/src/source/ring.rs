//! Reads the ring buffer on a thread of its own: a wake-up must reach it at once, and never wait
//! behind a task.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use detector_common::event::WAKE_HOLDOFF_NS;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::EventFd,
        time::TimeSpec,
    },
};

use super::{ring_buffer::RingRecord, ring_chain::RingChain};

/// Stops the reader.
pub struct RingStop(EventFd);

impl RingStop {
    /// Makes [`read_until_stopped`] read what is there and return.
    pub fn stop(&self) {
        // An eventfd of 1 cannot overflow.
        let _ = self.0.write(1);
    }
}

/// A pair: the handle that stops the reader, and what the reader waits on.
///
/// # Errors
/// When the process is out of file descriptors.
pub fn stop_pair() -> std::io::Result<(RingStop, OwnedFd)> {
    let event = EventFd::new()?;
    let waited_on = event.as_fd().try_clone_to_owned()?;
    Ok((RingStop(event), waited_on))
}

/// Who the records are for.
pub trait RecordTaker {
    /// Takes one record. May block: the ring is the buffer, and what no longer fits it is counted
    /// by the kernel.
    fn take(&mut self, record: &RingRecord<'_>);

    /// Up to where the ring may be released, when it was read up to `read_to`.
    fn settled(&mut self, read_to: u64) -> u64 {
        read_to
    }

    /// How long to leave records where they are, because enough was done for now.
    fn rest(&mut self) -> Duration {
        Duration::ZERO
    }

    /// Everything that was there has been taken (`all`), or a good part of it; called at least every
    /// 50 ms.
    fn looked(&mut self, all: bool) {
        let _ = all;
    }
}

/// Records taken between two looks at anything else.
const BATCH: usize = 1_024;
/// Records taken between two releases.
const RELEASE: usize = 64;
/// How long to wait for the next record, when there was none.
const IDLE: Duration = Duration::from_millis(50);
/// The same while some are not settled: what they keep from the kernel must not be missing long.
const SETTLING: Duration = Duration::from_millis(5);
const HOLDOFF: Duration = Duration::from_nanos(WAKE_HOLDOFF_NS);

/// Hands every record to `taker` until stopped, then drains what is there.
///
/// The kernel wakes the reader at most once per [`WAKE_HOLDOFF_NS`] and CPU, so after each batch it
/// looks again after that time, until it found nothing: then no record can be waiting unannounced,
/// but for one that was written just as it fell asleep, hence the idle time-out.
///
/// # Errors
/// When waiting fails.
pub fn read_until_stopped(
    ring: &mut RingChain,
    stop: &OwnedFd,
    taker: &mut impl RecordTaker,
) -> std::io::Result<()> {
    let bell = Bell::new(ring)?;
    let mut wait = IDLE;
    loop {
        let stopped = bell.wait(stop, wait)? || rest(stop, ring, taker)?;
        let Drained { taken, all } = drain(ring, taker, stopped);
        taker.looked(all);
        let settled = release(ring, taker);
        wait = match taken {
            _ if !all => Duration::ZERO,
            1.. => HOLDOFF,
            0 if !settled => SETTLING,
            0 => IDLE,
        };
        if stopped && all {
            return Ok(());
        }
    }
}

/// Rests as long as the taker says, with a look at other things now and then; whether to stop.
fn rest(
    stop: &OwnedFd,
    ring: &mut RingChain,
    taker: &mut impl RecordTaker,
) -> std::io::Result<bool> {
    loop {
        let rest = taker.rest();
        if rest.is_zero() {
            return Ok(false);
        }
        let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(rest.min(IDLE))), None) {
            Ok(0) | Err(Errno::EINTR) => {
                taker.looked(false);
                release(ring, taker);
            }
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Says that records may have come. Level-triggered polls would say so all the time, as the kernel
/// calls the ring readable while anything in it is not released: so each wake-up counts once.
struct Bell(Epoll);

impl Bell {
    fn new(ring: &RingChain) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(ring, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        Ok(Self(epoll))
    }

    /// Waits for records, at most `timeout`; whether to stop. By ppoll(2), whose time-outs can be
    /// shorter than a millisecond on every kernel.
    fn wait(&self, stop: &OwnedFd, timeout: Duration) -> std::io::Result<bool> {
        let mut fds = [
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.0.0.as_fd(), PollFlags::POLLIN),
        ];
        let stopped = match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
            Ok(_) | Err(Errno::EINTR) => fds[0].any().unwrap_or(false),
            Err(error) => return Err(error.into()),
        };
        let rung = self.0.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO);
        match rung {
            Ok(_) | Err(Errno::EINTR) => Ok(stopped),
            Err(error) => Err(error.into()),
        }
    }
}

struct Drained {
    taken: usize,
    /// Or were there more?
    all: bool,
}

/// Takes the records that are there, at most a batch, and no more than the taker has strength for
/// unless it is the last time.
fn drain(ring: &mut RingChain, taker: &mut impl RecordTaker, last: bool) -> Drained {
    let mut taken = 0;
    while taken < BATCH {
        let Some(record) = ring.next_held() else { return Drained { taken, all: true } };
        taker.take(&record);
        taken += 1;
        if taken.is_multiple_of(RELEASE) {
            release(ring, taker);
            if !last && !taker.rest().is_zero() {
                break;
            }
        }
    }
    Drained { taken, all: false }
}

/// Whether everything that was read is settled.
fn release(ring: &mut RingChain, taker: &mut impl RecordTaker) -> bool {
    let settled = taker.settled(ring.position());
    ring.release(settled);
    settled >= ring.position()
}
