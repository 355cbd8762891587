//! The start of an HTTP/1 request line (RFC 9112 section 3).

use crate::packet::PacketBytes;

/// A request method (RFC 9110 section 9.3, RFC 5789).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum HttpMethod {
    /// Transfer a representation.
    Get = 1,
    /// As GET, without the content.
    Head = 2,
    /// Resource-specific processing of the content.
    Post = 3,
    /// Replace the representation.
    Put = 4,
    /// Remove the representation.
    Delete = 5,
    /// Open a tunnel.
    Connect = 6,
    /// Describe the communication options.
    Options = 7,
    /// Loop the request back.
    Trace = 8,
    /// Change part of a representation (RFC 5789).
    Patch = 9,
}

impl HttpMethod {
    /// Every method, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Connect,
        Self::Options,
        Self::Trace,
        Self::Patch,
    ];

    /// The method's token as it stands in a request line.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

/// Lengths, longest first, to which the paths of rules are cut for the kernel's table.
///
/// A rule's path is looked up by its longest such prefix; user space compares the rest. So the
/// cost does not grow with the number of rules, and nearly all unwanted requests stay out of the
/// ring buffer.
pub const PATH_PREFIX_LENGTHS: [usize; 4] = [32, 16, 8, 4];

/// The start of a request line found at the start of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// The method.
    pub method: HttpMethod,
    /// Where the request target starts, in bytes from the packet's start.
    pub target_offset: u32,
}

/// Looks for a request line at `offset`. Methods are case-sensitive (RFC 9110 section 9.1).
#[inline(always)]
pub fn request_line<P: PacketBytes + ?Sized>(packet: &P, offset: usize) -> Option<RequestLine> {
    let start: [u8; 8] = packet.load(offset)?;
    let method = method_of(start)?;
    Some(RequestLine { method, target_offset: (offset + method.token().len() + 1) as u32 })
}

/// Bytes that a method and its space need at most, `CONNECT ` and `OPTIONS `: a payload of fewer may be
/// the beginning of a request line that was cut in its method.
pub(crate) const METHOD_AND_SPACE: u32 = 8;

/// Whether these bytes begin with a method's token and a space.
#[inline(always)]
pub fn begins_request(start: [u8; 8]) -> bool {
    method_of(start).is_some()
}

/// Whether a method's token begins with this byte.
#[inline(always)]
pub const fn begins_method(first: u8) -> bool {
    matches!(first, b'G' | b'H' | b'P' | b'D' | b'C' | b'O' | b'T')
}

/// The method whose token and a space these bytes begin with.
#[inline(always)]
fn method_of(start: [u8; 8]) -> Option<HttpMethod> {
    let word = u64::from_le_bytes(start);
    // One pass over the first four bytes turns away nearly all payloads that are not HTTP.
    let method = match &word.to_le_bytes()[..4] {
        b"GET " => HttpMethod::Get,
        b"HEAD" => HttpMethod::Head,
        b"POST" => HttpMethod::Post,
        b"PUT " => HttpMethod::Put,
        b"DELE" => HttpMethod::Delete,
        b"CONN" => HttpMethod::Connect,
        b"OPTI" => HttpMethod::Options,
        b"TRAC" => HttpMethod::Trace,
        b"PATC" => HttpMethod::Patch,
        _ => return None,
    };
    let (token, mask) = token_and_space(method);
    (word & mask == token).then_some(method)
}

/// A method's token and the space after it as a little-endian word, and the bytes that count.
/// `CONNECT ` and `OPTIONS ` fill the word.
#[inline(always)]
const fn token_and_space(method: HttpMethod) -> (u64, u64) {
    const fn word(bytes: &[u8; 8], length: u32) -> (u64, u64) {
        let mask = u64::MAX >> (64 - 8 * length);
        (u64::from_le_bytes(*bytes) & mask, mask)
    }
    match method {
        HttpMethod::Get => word(b"GET     ", 4),
        HttpMethod::Head => word(b"HEAD    ", 5),
        HttpMethod::Post => word(b"POST    ", 5),
        HttpMethod::Put => word(b"PUT     ", 4),
        HttpMethod::Delete => word(b"DELETE  ", 7),
        HttpMethod::Connect => word(b"CONNECT ", 8),
        HttpMethod::Options => word(b"OPTIONS ", 8),
        HttpMethod::Trace => word(b"TRACE   ", 6),
        HttpMethod::Patch => word(b"PATCH   ", 6),
    }
}
