//! One TCP connection: both directions, and what their readers share.

use detector_common::wire::tcp_flag;

use super::{
    Key, Limits, Output, Segment, Transport,
    choice::{Protocol, expected},
    half::{Context, Half},
    order::Order,
    table::Waiting,
};
use crate::l7::{Way, coap, http1, mqtt};

/// One connection.
pub(super) struct Connection {
    key: Key,
    expected: Option<Protocol>,
    /// From the key's first end to its second, and back.
    orders: [Order; 2],
    halves: [Half; 2],
    shared: Shared,
}

/// What readers of both directions share. Most connections need none of it.
#[derive(Default)]
pub(super) struct Shared {
    http: http1::Connection,
    mqtt: Option<Box<mqtt::Connection>>,
    coap: Option<Box<coap::Exchanges>>,
}

impl Shared {
    pub(super) fn http(&self) -> &http1::Connection {
        &self.http
    }

    pub(super) fn http_mut(&mut self) -> &mut http1::Connection {
        &mut self.http
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

impl Waiting for Connection {
    fn waiting(&self) -> usize {
        self.orders.iter().map(Order::waiting).sum::<usize>()
            + self.halves.iter().map(Half::waiting).sum::<usize>()
    }
}

impl Connection {
    pub(super) fn new(key: Key) -> Self {
        let expected = expected(key.0);
        let http = match expected {
            Some(Protocol::Http1) => http1::Connection::expected(),
            Some(_) | None => http1::Connection::default(),
        };
        let shared = Shared { http, ..Shared::default() };
        Self { key, expected, orders: Default::default(), halves: Default::default(), shared }
    }

    /// Takes a segment in. It goes from the key's first end to its second if `forth`.
    pub(super) fn segment(
        &mut self,
        segment: &Segment<'_>,
        forth: bool,
        limits: Limits,
        output: &mut Output<'_>,
    ) {
        let Transport::Tcp { sequence, acknowledgement, flags } = segment.transport else { return };
        let mut sequence = sequence;
        if flags & tcp_flag::SYN != 0 {
            if self.orders[usize::from(!forth)].is_other(sequence) {
                self.begin_anew(forth, flags);
            }
            self.orders[usize::from(!forth)].begin(sequence);
            sequence = sequence.wrapping_add(1);
        }
        if flags & tcp_flag::ACK != 0 {
            let back = !forth;
            let (order, half, mut context) = self.parts(back, limits, output);
            order.acknowledge(acknowledgement, &mut |piece| half.piece(piece, &mut context));
        }
        if segment.length == 0 {
            return;
        }
        let (order, half, mut context) = self.parts(forth, limits, output);
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

    /// The ports are used again. An answer (SYN and ACK) begins its own direction only.
    fn begin_anew(&mut self, forth: bool, flags: u8) {
        if flags & tcp_flag::ACK == 0 {
            *self = Self::new(self.key);
        } else {
            let place = usize::from(!forth);
            self.orders[place] = Order::default();
            self.halves[place] = Half::default();
        }
    }

    /// Nothing more will come.
    pub(super) fn finish(&mut self, limits: Limits, output: &mut Output<'_>) {
        for forth in [true, false] {
            let (order, half, mut context) = self.parts(forth, limits, output);
            order.finish(&mut |piece| half.piece(piece, &mut context));
            half.finish(&mut context);
        }
    }

    /// One direction, and what it needs to read.
    fn parts<'c, 'o>(
        &'c mut self,
        forth: bool,
        limits: Limits,
        output: &'c mut Output<'o>,
    ) -> (&'c mut Order, &'c mut Half, Context<'c, 'o>) {
        let place = usize::from(!forth);
        let [first, second] = self.key.0;
        let ends = if forth { [first, second] } else { [second, first] };
        let way = if forth { Way::Forth } else { Way::Back };
        let context = Context {
            ends,
            way,
            expected: self.expected,
            shared: &mut self.shared,
            limits,
            output,
        };
        (&mut self.orders[place], &mut self.halves[place], context)
    }
}
