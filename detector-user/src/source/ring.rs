//! Reads the ring buffer on a thread of its own: a wake-up must reach it at once, and never wait
//! behind a task.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use detector_common::event::WAKE_HOLDOFF_NS;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{eventfd::EventFd, time::TimeSpec},
};

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
    fn take(&mut self, record: &[u8]);

    /// Everything that was there has been taken; called at least every 50 ms.
    fn looked(&mut self) {}
}

/// Hands every record to `taker` until stopped, then drains what is there.
///
/// The kernel wakes the reader at most once per [`WAKE_HOLDOFF_NS`] and CPU, so after each batch it
/// looks again after that time, until it found nothing: then no record can be waiting unannounced,
/// but for one that was written just as it fell asleep, hence the idle time-out.
///
/// # Errors
/// When waiting fails.
pub fn read_until_stopped(
    ring: &mut RingBuf<MapData>,
    stop: &OwnedFd,
    taker: &mut impl RecordTaker,
) -> std::io::Result<()> {
    const IDLE: Duration = Duration::from_millis(50);
    const HOLDOFF: Duration = Duration::from_nanos(WAKE_HOLDOFF_NS);
    let mut wait = IDLE;
    loop {
        let stopped = wait_for(ring, stop, wait)?;
        let found = drain(ring, taker);
        taker.looked();
        if stopped {
            return Ok(());
        }
        wait = if found { HOLDOFF } else { IDLE };
    }
}

/// Waits for records, at most `timeout`; whether to stop.
fn wait_for(ring: &RingBuf<MapData>, stop: &OwnedFd, timeout: Duration) -> std::io::Result<bool> {
    let mut fds = [
        PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        PollFd::new(ring.as_fd(), PollFlags::POLLIN),
    ];
    match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(fds[0].any().unwrap_or(false)),
        Err(error) => Err(error.into()),
    }
}

fn drain(ring: &mut RingBuf<MapData>, taker: &mut impl RecordTaker) -> bool {
    let mut found = false;
    while let Some(record) = ring.next() {
        taker.take(&record);
        found = true;
    }
    found
}
