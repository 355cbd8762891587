//! One TCP connection: both directions, and what their readers share.

use detector_common::wire::tcp_flag;

use super::{
    Output, Segment, Transport, Wanted,
    choice::{Protocol, expected},
    half::{Context, Half},
    order::Order,
    table::{Key, Remembered},
};
use crate::l7::{coap, http1, mqtt};

/// One connection.
pub(super) struct Connection {
    /// From the key's first end to its second, and back.
    directions: [Direction; 2],
    shared: Shared,
}

/// One direction of it. Both parts stand side by side, because most packets need both.
#[derive(Default)]
struct Direction {
    order: Order,
    half: Half,
}

/// What readers of both directions share. Most connections need none of it.
#[derive(Default)]
pub(super) struct Shared {
    /// What was looked for when the last segment passed.
    wanted: Wanted,
    http: http1::Connection,
    mqtt: Option<Box<mqtt::Connection>>,
    coap: Option<Box<coap::Exchanges>>,
}

impl Shared {
    pub(super) fn wanted(&self) -> Wanted {
        self.wanted
    }

    pub(super) fn http(&self) -> &http1::Connection {
        &self.http
    }

    pub(super) fn http_mut(&mut self) -> &mut http1::Connection {
        &mut self.http
    }

    fn kept(&self) -> usize {
        self.http.kept()
            + self.mqtt.as_ref().map_or(0, |mqtt| mqtt.kept())
            + self.coap.as_ref().map_or(0, |coap| coap.kept())
    }

    pub(super) fn mqtt(&mut self) -> &mut mqtt::Connection {
        self.mqtt.get_or_insert_default()
    }

    pub(super) fn coap(&mut self) -> &mut coap::Exchanges {
        self.coap.get_or_insert_default()
    }
}

/// Whether a segment opens a connection.
pub(super) fn opens(segment: &Segment<'_>) -> bool {
    matches!(segment.transport, Transport::Tcp { flags, .. } if flags & tcp_flag::SYN != 0)
}

impl Remembered for Connection {
    fn begin(key: &Key) -> Self {
        let http = match expected(key.0) {
            Some(Protocol::Http1) => http1::Connection::expected(),
            Some(_) | None => http1::Connection::default(),
        };
        Self { directions: Default::default(), shared: Shared { http, ..Shared::default() } }
    }

    fn kept(&self) -> usize {
        let [first, second] = &self.directions;
        first.kept() + second.kept() + self.shared.kept()
    }

    fn is_unfinished(&self) -> bool {
        let waits = |way: &Direction| way.order.waiting() + way.half.waiting() > 0;
        self.directions.iter().any(waits)
    }
}

impl Direction {
    fn kept(&self) -> usize {
        self.order.waiting() + self.half.kept()
    }
}

impl Connection {
    /// Takes a segment in. It goes from the key's first end to its second if `forth`.
    pub(super) fn segment(
        &mut self,
        key: &Key,
        segment: &Segment<'_>,
        forth: bool,
        output: &mut Output<'_>,
    ) {
        let Transport::Tcp { sequence, acknowledgement, flags } = segment.transport else { return };
        let mut sequence = sequence;
        if flags & tcp_flag::SYN != 0 {
            if self.directions[usize::from(!forth)].order.is_other(sequence) {
                self.begin_anew(key, forth, flags);
            }
            self.directions[usize::from(!forth)].order.begin(sequence);
            sequence = sequence.wrapping_add(1);
        }
        self.shared.wanted = segment.wanted;
        if flags & tcp_flag::ACK != 0 {
            let (order, half, mut context) = self.parts(key, !forth, output);
            order.acknowledge(acknowledgement, &mut |piece| half.piece(piece, &mut context));
        }
        if segment.length == 0 {
            return;
        }
        let (order, half, mut context) = self.parts(key, forth, output);
        let unwanted = half.unwanted();
        let mut give = |piece: super::order::Piece<'_>| half.piece(piece, &mut context);
        order.segment(
            sequence,
            segment.payload,
            segment.length,
            segment.stamp,
            unwanted,
            &mut give,
        );
    }

    /// What a direction said before a sequence number is not seen any more, where it was not.
    pub(super) fn give_up_before(
        &mut self,
        key: &Key,
        sequence: u32,
        forth: bool,
        output: &mut Output<'_>,
    ) {
        let (order, half, mut context) = self.parts(key, forth, output);
        order.give_up_before(sequence, &mut |piece| half.piece(piece, &mut context));
    }

    /// The ports are used again. An answer (SYN and ACK) begins its own direction only.
    fn begin_anew(&mut self, key: &Key, forth: bool, flags: u8) {
        if flags & tcp_flag::ACK == 0 {
            *self = Self::begin(key);
        } else {
            self.directions[usize::from(!forth)] = Direction::default();
        }
    }

    /// Nothing more will come.
    pub(super) fn finish(&mut self, key: &Key, output: &mut Output<'_>) {
        for forth in [true, false] {
            let (order, half, mut context) = self.parts(key, forth, output);
            order.finish(&mut |piece| half.piece(piece, &mut context));
            half.finish(&mut context);
        }
    }

    /// One direction, and what it needs to read.
    fn parts<'c, 'o>(
        &'c mut self,
        key: &'c Key,
        forth: bool,
        output: &'c mut Output<'o>,
    ) -> (&'c mut Order, &'c mut Half, Context<'c, 'o>) {
        let Direction { order, half } = &mut self.directions[usize::from(!forth)];
        (order, half, Context { key, forth, shared: &mut self.shared, output })
    }
}
