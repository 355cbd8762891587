//! HTTP/2 in clear (RFC 9113): with prior knowledge, or after an `Upgrade: h2c` that HTTP/1.1 was
//! asked for (RFC 7540 section 3.2). Requests and responses as HTTP/1 has them; bodies are passed
//! over by their length, but for those that are DNS.

mod body;
mod frame;
mod head;

use smallvec::smallvec;

use super::{Fact, Facts, Step};
use body::Bodies;
use frame::{Frame, Kind};
use head::Heads;

/// A longer header block is not read; browsers and servers stop at 16 to 64 KiB.
const MAX_BLOCK: usize = 64 * 1024;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Reader {
    preface: bool,
    open: Option<Open>,
    heads: Heads,
    bodies: Bodies,
}

/// A header block that goes on in CONTINUATION frames.
#[derive(Debug)]
struct Open {
    stream: u32,
    /// It is a request that the server pushes: nobody asked.
    pushed: bool,
    /// A body follows.
    body: bool,
    block: Vec<u8>,
}

impl Reader {
    /// For what a client sends, from its [`PREFACE`] on.
    pub fn client() -> Reader {
        Reader { preface: true, ..Reader::default() }
    }

    /// For what a server sends, from its first SETTINGS frame on: from the beginning, or behind the
    /// `101 Switching Protocols` of an upgrade.
    pub fn server() -> Reader {
        Reader::default()
    }

    /// Bytes that are kept for frames to come.
    pub(crate) fn kept(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| open.block.len());
        open + self.heads.kept() + self.bodies.kept()
    }

    /// Reads the preface or one frame.
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        if self.preface {
            return self.step_preface(bytes);
        }
        match Frame::read(bytes) {
            Some(frame) => self.step_frame(&frame, bytes),
            None => Step::More,
        }
    }

    fn step_preface(&mut self, bytes: &[u8]) -> Step {
        if bytes.starts_with(PREFACE) {
            self.preface = false;
            return Step::Took { consumed: PREFACE.len() as u64, facts: Facts::new() };
        }
        if PREFACE.starts_with(bytes) { Step::More } else { Step::Not }
    }

    fn step_frame(&mut self, frame: &Frame, bytes: &[u8]) -> Step {
        let skip = Step::Took { consumed: frame.end() as u64, facts: Facts::new() };
        let in_order = match (&self.open, frame.kind) {
            (None, Kind::Other) => return skip,
            (None, Kind::Data) if !self.bodies.wants(frame.stream) => return skip,
            (None, Kind::Data) if frame.length > MAX_BLOCK => {
                self.bodies.drop(frame.stream);
                return skip;
            }
            (None, Kind::Headers | Kind::PushPromise | Kind::Data) => true,
            (Some(open), Kind::Continuation) => open.stream == frame.stream,
            (None, Kind::Continuation)
            | (Some(_), Kind::Headers | Kind::PushPromise | Kind::Data | Kind::Other) => false,
        };
        if !in_order || frame.length > MAX_BLOCK {
            return Step::Not;
        }
        match frame.payload(bytes).map(|payload| frame.fragment(payload)) {
            None => Step::More,
            Some(None) => Step::Not,
            Some(Some(data)) if frame.kind == Kind::Data => self.step_data(frame, data),
            Some(Some(fragment)) => self.step_block(frame, fragment),
        }
    }

    fn step_data(&mut self, frame: &Frame, data: &[u8]) -> Step {
        let message = self.bodies.add(frame.stream, data, frame.ends_stream());
        Step::Took {
            consumed: frame.end() as u64,
            facts: message.map(Fact::Dns).into_iter().collect(),
        }
    }

    /// A header block is one, however many frames it comes in (RFC 9113 section 4.3).
    fn step_block(&mut self, frame: &Frame, fragment: &[u8]) -> Step {
        let mut open = self.open.take().unwrap_or_else(|| Open {
            stream: frame.stream,
            pushed: frame.kind == Kind::PushPromise,
            body: !frame.ends_stream(),
            block: Vec::new(),
        });
        if open.block.len() + fragment.len() > MAX_BLOCK {
            return Step::Not;
        }
        open.block.extend_from_slice(fragment);
        if !frame.ends_headers() {
            self.open = Some(open);
            return Step::Took { consumed: frame.end() as u64, facts: Facts::new() };
        }
        match self.heads.read(&open.block) {
            Ok(head) => Step::Took { consumed: frame.end() as u64, facts: self.head(&open, head) },
            Err(head::Damaged) => Step::Not,
        }
    }

    /// What a head says, and the body before it if it is trailers.
    fn head(&mut self, open: &Open, head: Option<Fact>) -> Facts {
        match head {
            Some(_) if open.pushed => Facts::new(),
            Some(head) => {
                if open.body {
                    self.bodies.begin(open.stream, &head);
                }
                smallvec![head]
            }
            None => {
                self.bodies.add(open.stream, b"", !open.body).map(Fact::Dns).into_iter().collect()
            }
        }
    }
}

/// Whether a server's stream may begin so: with a SETTINGS frame of stream 0 (RFC 9113 section 3.4).
pub fn looks_like_server(bytes: &[u8]) -> bool {
    Frame::read(bytes).is_some_and(|frame| frame.is_settings())
}

#[cfg(test)]
mod tests;
