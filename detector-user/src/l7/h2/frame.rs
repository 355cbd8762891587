//! Frames (RFC 9113 section 4.1).

const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x01;
const END_STREAM: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

/// What a frame is to a reader of header blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    PushPromise,
    Continuation,
    Other,
}

/// The head of a frame.
pub(super) struct Frame {
    pub(super) kind: Kind,
    code: u8,
    flags: u8,
    pub(super) stream: u32,
    /// Bytes of payload.
    pub(super) length: usize,
}

impl Frame {
    /// None if the head is not whole.
    pub(super) fn read(bytes: &[u8]) -> Option<Frame> {
        let [l0, l1, l2, code, flags, stream @ ..] = *bytes.first_chunk::<HEAD>()?;
        Some(Frame {
            kind: match code {
                DATA => Kind::Data,
                HEADERS => Kind::Headers,
                PUSH_PROMISE => Kind::PushPromise,
                CONTINUATION => Kind::Continuation,
                _ => Kind::Other,
            },
            code,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
        })
    }

    /// Where the next frame begins.
    pub(super) fn end(&self) -> usize {
        HEAD + self.length
    }

    pub(super) fn ends_headers(&self) -> bool {
        self.flags & END_HEADERS != 0
    }

    /// Of DATA and HEADERS: nothing more of the stream follows in this direction.
    pub(super) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    pub(super) fn is_settings(&self) -> bool {
        let sized = match self.flags & ACK {
            0 => self.length.is_multiple_of(6) && self.length <= 6 * 64,
            _ => self.length == 0,
        };
        self.code == SETTINGS && self.stream == 0 && sized
    }

    /// The payload, if it is whole.
    pub(super) fn payload<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        bytes.get(HEAD..self.end())
    }

    /// The part of a body or header block in this payload: without padding, priority, promised stream
    /// (RFC 9113 sections 6.1, 6.2, 6.6, 6.10); none if it has no room for those.
    pub(super) fn fragment<'b>(&self, payload: &'b [u8]) -> Option<&'b [u8]> {
        let padded = self.flags & PADDED != 0;
        let (before, padding) = match self.kind {
            Kind::Continuation | Kind::Other => (0, false),
            Kind::PushPromise => (4, padded),
            Kind::Data => (0, padded),
            Kind::Headers if self.flags & PRIORITY != 0 => (5, padded),
            Kind::Headers => (0, padded),
        };
        let (padding, rest) = match padding {
            true => payload.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
            false => (0, payload),
        };
        rest.get(before..rest.len().checked_sub(padding)?)
    }
}
