//! HTTP/1 (RFC 9112) on a stream: the heads of requests and responses. Bodies are passed over by
//! their length.
//!
//! What is read is what servers of all kinds let pass, and what Wireshark reads: lines that end with
//! CR, LF or both, empty lines before a request, header lines that are none. Strict libraries
//! (httparse) refuse whole heads for one odd byte, and then the request would be missed.

mod head;
mod line;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::{
    head::{Body, Head, Start},
    line::Line,
};
use super::{Fact, Step, fact::HttpRequest};

/// A longer head is not read; servers stop at 8 to 64 KiB.
pub const MAX_HEAD: usize = 64 << 10;
/// Requests that wait for their responses; a pipeline is never deeper.
const MAX_WAITING: usize = 256;

/// What both directions of a connection share.
#[derive(Debug, Default)]
pub struct Connection {
    /// Something of HTTP was seen, so that a first line without a version is believed.
    known: bool,
    /// Requests without their response, as far as it matters for the response's body.
    waiting: VecDeque<Asked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Head,
    Connect,
    Other,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    /// The head ended with a CR whose LF may still follow; then comes a body of so many bytes.
    pending: Option<u64>,
}

#[derive(Debug, Default)]
enum State {
    /// A head comes next.
    #[default]
    Head,
    /// A chunk of a body comes next (RFC 9112 section 7.1).
    Chunk,
    /// What follows the last chunk: fields, then an empty line.
    Trailer,
    /// A response whose body goes on until the connection is closed.
    UntilClose,
    /// Another protocol follows: after CONNECT, 101 Switching Protocols, or in an RPC channel.
    Switched,
}

/// Whether bytes begin HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// A request or status line.
    Yes,
    /// So far; the line goes on.
    Perhaps,
    /// Something else.
    No,
}

/// Whether a stream, or what follows a gap in it, begins with a request or status line.
pub fn looks_like(bytes: &[u8]) -> Likeness {
    likeness(bytes, false)
}

fn likeness(bytes: &[u8], known: bool) -> Likeness {
    let bytes = line::without_empty_lines(bytes);
    if !head::may_begin(bytes) {
        return Likeness::No;
    }
    match Line::first(bytes) {
        Some(line) if Start::read(line.text).is_some_and(|start| known || start.versioned()) => {
            Likeness::Yes
        }
        None if bytes.len() < MAX_HEAD => Likeness::Perhaps,
        Some(_) | None => Likeness::No,
    }
}

/// Why no request is read from the start of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRequest {
    /// The bytes end inside the request line.
    LineCut,
    /// It is something else.
    NotHttp,
}

/// The request that a payload begins with, with those fields that are whole.
///
/// # Errors
/// When there is none, or its first line is not whole.
pub fn request(bytes: &[u8]) -> Result<HttpRequest, NoRequest> {
    let first = Line::first_or_rest(bytes);
    // Of a line that has no end the target may go on.
    let binary = first.text.iter().any(u8::is_ascii_control);
    if bytes.is_empty() || binary || !head::may_begin(bytes) {
        return Err(NoRequest::NotHttp);
    }
    let whole = Line::first(bytes).is_some();
    let versioned = Start::read(first.text).is_some_and(|start| start.versioned());
    if !versioned {
        return Err(if whole { NoRequest::NotHttp } else { NoRequest::LineCut });
    }
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(bytes.len(), |last| last + 1);
    match Head::read(&bytes[..end]).map(Head::fact) {
        Some(Fact::HttpRequest(request)) => Ok(request),
        Some(_) | None => Err(NoRequest::NotHttp),
    }
}

impl Connection {
    /// Takes a connection for HTTP because of its port.
    pub fn expected() -> Self {
        Self { known: true, ..Self::default() }
    }

    /// As [`looks_like`], knowing what was seen of the connection.
    pub fn looks_like(&self, bytes: &[u8]) -> Likeness {
        likeness(bytes, self.known)
    }

    /// Bytes that it keeps.
    pub(crate) fn kept(&self) -> usize {
        self.waiting.len()
    }

    fn asked(&mut self, method: &str) {
        self.known = true;
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(match method {
                "HEAD" => Asked::Head,
                "CONNECT" => Asked::Connect,
                _ => Asked::Other,
            });
        }
    }

    /// The request that a response answers; one with an interim status (1xx) leaves it waiting.
    fn answered(&mut self, status: u16) -> Asked {
        self.known = true;
        let interim = status / 100 == 1 && status != 101;
        let asked = if interim { self.waiting.front().copied() } else { self.waiting.pop_front() };
        asked.unwrap_or(Asked::Other)
    }
}

impl Reader {
    /// Whether another protocol follows what was read.
    pub fn switched(&self) -> bool {
        matches!(self.state, State::Switched) && self.pending.is_none()
    }

    /// Whether a body goes on whose end is not known yet.
    pub fn in_body(&self) -> bool {
        matches!(self.state, State::Chunk | State::Trailer)
            || self.pending.is_some_and(|body| body > 0)
    }

    /// Bytes of a body that come next and that nobody will see. Where lines end with CR alone, no LF is
    /// among them.
    pub fn take_body(&mut self) -> u64 {
        self.pending.take().unwrap_or(0)
    }

    /// Reads a head, or the next part of a body.
    pub fn step(&mut self, connection: &mut Connection, bytes: &[u8]) -> Step {
        if !bytes.is_empty()
            && let Some(body) = self.pending.take()
        {
            let passed_over = u64::from(bytes[0] == b'\n') + body;
            if passed_over > 0 {
                return took_more(passed_over, None);
            }
        }
        match self.state {
            State::Head => self.head(connection, bytes),
            State::Chunk => self.chunk(bytes),
            State::Trailer => self.trailer(connection, bytes),
            State::UntilClose => took(bytes.len(), None),
            State::Switched => Step::Not,
        }
    }

    /// Ends the stream where bytes were not captured: what a head that has begun says so far.
    pub fn cut(&self, connection: &mut Connection, bytes: &[u8]) -> Option<Fact> {
        let bytes = line::without_empty_lines(bytes);
        if !matches!(self.state, State::Head) || bytes.is_empty() {
            return None;
        }
        let head = Head::read(bytes)?;
        if !connection.known && !head.start.versioned() {
            return None;
        }
        match &head.start {
            Start::Request { method, .. } => connection.asked(method),
            Start::Status { .. } => {}
        }
        Some(head.fact())
    }

    fn head(&mut self, connection: &mut Connection, bytes: &[u8]) -> Step {
        let text = line::without_empty_lines(bytes);
        let empty = bytes.len() - text.len();
        if empty > 0 {
            return took(empty, None);
        }
        if !bytes.first().is_some_and(|byte| byte.is_ascii_graphic()) {
            return if bytes.is_empty() || bytes == b"\r" { Step::More } else { Step::Not };
        }
        match connection.looks_like(bytes) {
            Likeness::No => return Step::Not,
            Likeness::Perhaps => return Step::More,
            Likeness::Yes => {}
        }
        let Some(end) = line::end_of_head(bytes) else {
            return if bytes.len() < MAX_HEAD { Step::More } else { Step::Not };
        };
        let Some(head) = Head::read(&bytes[..end]) else { return Step::Not };
        let body = self.body(connection, &head);
        if end == bytes.len() && bytes.ends_with(b"\r") {
            self.pending = Some(body);
            return took(end, Some(head.fact()));
        }
        took_more(end as u64 + body, Some(head.fact()))
    }

    /// Goes to the state that the head asks for; bytes to pass over.
    fn body(&mut self, connection: &mut Connection, head: &Head) -> u64 {
        let body = head.body();
        let bodiless = match &head.start {
            Start::Request { method, .. } => {
                connection.asked(method);
                if method == "CONNECT" || is_rpc_channel(method, body) {
                    self.state = State::Switched;
                    return 0;
                }
                body == Body::NotSaid
            }
            Start::Status { status, .. } => {
                let asked = connection.answered(*status);
                if *status == 101 || (asked == Asked::Connect && *status / 100 == 2) {
                    self.state = State::Switched;
                    return 0;
                }
                asked == Asked::Head || *status / 100 == 1 || matches!(*status, 204 | 304)
            }
        };
        if bodiless {
            return 0;
        }
        match body {
            Body::Length(length) => length,
            Body::Chunked => {
                self.state = State::Chunk;
                0
            }
            Body::NotSaid => {
                self.state = State::UntilClose;
                0
            }
        }
    }

    fn chunk(&mut self, bytes: &[u8]) -> Step {
        const MAX_LINE: usize = 4096;
        let Some(line) = Line::first(bytes) else {
            return if bytes.len() < MAX_LINE { Step::More } else { Step::Not };
        };
        let digits = line.text.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = str::from_utf8(digits).ok().map(str::trim);
        match size.and_then(|size| u32::from_str_radix(size, 16).ok()) {
            Some(0) => {
                self.state = State::Trailer;
                took(line.end, None)
            }
            Some(size) => took_more(line.end as u64 + u64::from(size) + 2, None),
            None => {
                self.state = State::Head;
                Step::Not
            }
        }
    }

    fn trailer(&mut self, connection: &mut Connection, bytes: &[u8]) -> Step {
        let Some(line) = Line::first(bytes) else {
            return if bytes.len() < MAX_HEAD { Step::More } else { Step::Not };
        };
        if line.text.is_empty() {
            self.state = State::Head;
            return took(line.end, None);
        }
        // Some senders leave the last empty line out.
        if Start::read(line.text).is_some() {
            self.state = State::Head;
            return self.head(connection, bytes);
        }
        took(line.end, None)
    }
}

/// Whether a body is a channel of RPC over HTTP (MS-RPCH section 2.1.2.1): it is said to be a gigabyte
/// long, and its parts are PDUs of their own.
fn is_rpc_channel(method: &str, body: Body) -> bool {
    const LONG: u64 = 128 << 10;
    matches!(method, "RPC_IN_DATA" | "RPC_OUT_DATA") && matches!(body, Body::Length(n) if n >= LONG)
}

fn took(consumed: usize, fact: Option<Fact>) -> Step {
    took_more(consumed as u64, fact)
}

fn took_more(consumed: u64, fact: Option<Fact>) -> Step {
    Step::Took { consumed, facts: fact.into_iter().collect() }
}
