//! One direction of a TCP connection, put in order (RFC 9293 section 3.4): what is there twice is
//! given once, the first copy; what is early waits until what was before it comes, or is known lost.

use super::Stamp;

/// Segments that may wait for an earlier one.
const MAX_AHEAD: usize = 64;
/// Bytes that may wait for an earlier segment.
const MAX_AHEAD_BYTES: usize = 128 << 10;

/// The next part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Bytes, and the packet they came in.
    Data(&'a [u8], Stamp),
    /// Bytes that were on the wire but not captured: the rest of the segment before.
    Cut(u64),
    /// Bytes of segments that were never seen.
    Gap(u64),
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The sequence number that comes next.
    next: Option<u32>,
    /// The sequence number of the SYN.
    start: Option<u32>,
    /// What the other end has acknowledged.
    acknowledged: Option<u32>,
    ahead: Vec<Ahead>,
}

#[derive(Debug)]
struct Ahead {
    sequence: u32,
    bytes: Vec<u8>,
    length: u32,
    stamp: Stamp,
}

/// How far `to` is ahead of `from`; negative if it is behind.
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}

impl Order {
    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.ahead.iter().map(|ahead| ahead.bytes.len()).sum()
    }

    /// Whether a SYN with this sequence number begins another connection than the one followed.
    pub(super) fn is_other(&self, syn: u32) -> bool {
        match (self.start, self.next) {
            (Some(start), _) => start != syn,
            (None, next) => next.is_some(),
        }
    }

    /// A SYN: its sequence number counts as one byte.
    pub(super) fn begin(&mut self, syn: u32) {
        if self.start.is_none() {
            *self = Self { next: Some(syn.wrapping_add(1)), start: Some(syn), ..Self::default() };
        }
    }

    /// A segment with payload. `unwanted` bytes that come next need not be seen.
    pub(super) fn segment(
        &mut self,
        sequence: u32,
        payload: &[u8],
        length: u32,
        stamp: Stamp,
        unwanted: u64,
        give: &mut impl FnMut(Piece<'_>),
    ) {
        if self.syn_not_counted(sequence, length) {
            self.next = Some(sequence);
        }
        let next = *self.next.get_or_insert(sequence);
        let early = distance(next, sequence);
        if early <= 0 {
            self.in_order(early.unsigned_abs(), payload, length, stamp, give);
            self.take_ahead(give);
        } else if u64::from(early.unsigned_abs()) <= unwanted {
            give(Piece::Gap(early.unsigned_abs().into()));
            self.next = Some(sequence);
            self.in_order(0, payload, length, stamp, give);
            self.take_ahead(give);
        } else {
            let place = self.ahead.partition_point(|other| {
                distance(next, other.sequence) <= distance(next, sequence)
            });
            let ahead = Ahead { sequence, bytes: payload.to_vec(), length, stamp };
            self.ahead.insert(place, ahead);
            self.give_up(give);
        }
    }

    /// Whether the first data begins at the SYN's own number: generators of test traffic forget that
    /// a SYN counts as one (RFC 9293 section 3.4), and then what they send is whole only so.
    fn syn_not_counted(&self, sequence: u32, length: u32) -> bool {
        let unread = self.start.map(|start| start.wrapping_add(1)) == self.next;
        unread && self.start == Some(sequence) && length > 1
    }

    /// A segment that begins `old` bytes before what comes next.
    fn in_order(
        &mut self,
        old: u32,
        payload: &[u8],
        length: u32,
        stamp: Stamp,
        give: &mut impl FnMut(Piece<'_>),
    ) {
        let Some(new) = length.checked_sub(old).filter(|new| *new > 0) else { return };
        self.next = self.next.map(|next| next.wrapping_add(new));
        let payload = payload.get(old as usize..).unwrap_or_default();
        if !payload.is_empty() {
            give(Piece::Data(payload, stamp));
        }
        let missing = u64::from(new).saturating_sub(payload.len() as u64);
        if missing > 0 {
            give(Piece::Cut(missing));
        }
    }

    /// What waited and now comes next.
    fn take_ahead(&mut self, give: &mut impl FnMut(Piece<'_>)) {
        while let (Some(first), Some(next)) = (self.ahead.first(), self.next) {
            let early = distance(next, first.sequence);
            if early > 0 {
                return;
            }
            let ahead = self.ahead.remove(0);
            self.in_order(early.unsigned_abs(), &ahead.bytes, ahead.length, ahead.stamp, give);
        }
    }

    /// The other end has everything before `number`.
    pub(super) fn acknowledge(&mut self, number: u32, give: &mut impl FnMut(Piece<'_>)) {
        self.acknowledged = Some(number);
        if !self.ahead.is_empty() {
            self.give_up(give);
        }
    }

    /// Goes on behind a gap that will not be filled: the receiver has what is missing there, or too
    /// much waits.
    fn give_up(&mut self, give: &mut impl FnMut(Piece<'_>)) {
        loop {
            let (Some(next), Some(_)) = (self.next, self.ahead.first()) else { return };
            let received = self.acknowledged.is_some_and(|number| distance(next, number) > 0);
            let too_much = self.ahead.len() > MAX_AHEAD || self.waiting() > MAX_AHEAD_BYTES;
            if !received && !too_much {
                return;
            }
            self.skip_gap(give);
        }
    }

    fn skip_gap(&mut self, give: &mut impl FnMut(Piece<'_>)) {
        let (Some(next), Some(first)) = (self.next, self.ahead.first()) else { return };
        let gap = distance(next, first.sequence);
        if gap > 0 {
            self.next = Some(first.sequence);
            give(Piece::Gap(gap.unsigned_abs().into()));
        }
        self.take_ahead(give);
    }

    /// What was not seen before this sequence number will not be.
    pub(super) fn give_up_before(&mut self, sequence: u32, give: &mut impl FnMut(Piece<'_>)) {
        while let Some(next) = self.next.filter(|next| distance(*next, sequence) > 0) {
            match self.ahead.first() {
                Some(first) if distance(first.sequence, sequence) > 0 => self.skip_gap(give),
                Some(_) | None => {
                    self.next = Some(sequence);
                    give(Piece::Gap(distance(next, sequence).unsigned_abs().into()));
                }
            }
        }
        self.take_ahead(give);
    }

    /// Nothing more will come.
    pub(super) fn finish(&mut self, give: &mut impl FnMut(Piece<'_>)) {
        while !self.ahead.is_empty() {
            self.skip_gap(give);
        }
    }
}
