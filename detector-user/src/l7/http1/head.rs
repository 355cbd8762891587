//! The head of a request or response: first line and fields.

use super::line::Line;
use crate::l7::{
    Fact,
    fact::{HttpRequest, HttpResponse, HttpVersion},
    text,
};

/// Fields that are kept of one head.
const MAX_FIELDS: usize = 256;
/// A larger content length is nonsense, or a stream (MS-SSTP says 2^64 - 1).
const MAX_CONTENT_LENGTH: u64 = i32::MAX as u64;

/// Methods of RFC 9110, PATCH, WebDAV and DeltaV (RFC 4918, 3253), UPnP, and of Microsoft's tunnels.
pub(super) const METHODS: &[&str] = &[
    "GET",
    "PUT",
    "COPY",
    "HEAD",
    "LOCK",
    "MOVE",
    "POLL",
    "POST",
    "BCOPY",
    "BMOVE",
    "MKCOL",
    "TRACE",
    "PATCH",
    "LABEL",
    "MERGE",
    "DELETE",
    "SEARCH",
    "UNLOCK",
    "REPORT",
    "UPDATE",
    "NOTIFY",
    "BDELETE",
    "CONNECT",
    "OPTIONS",
    "CHECKIN",
    "PROPFIND",
    "CHECKOUT",
    "CCM_POST",
    "SUBSCRIBE",
    "PROPPATCH",
    "BPROPFIND",
    "BPROPPATCH",
    "UNCHECKOUT",
    "MKACTIVITY",
    "MKWORKSPACE",
    "UNSUBSCRIBE",
];
pub(super) const LONG_METHODS: &[&str] = &[
    "RPC_CONNECT",
    "RPC_IN_DATA",
    "RPC_OUT_DATA",
    "VERSION-CONTROL",
    "BASELINE-CONTROL",
    "SSTP_DUPLEX_POST",
];
/// A mandatory extension of a method (RFC 2774 section 5).
const MANDATORY: &[u8] = b"M-";

/// The first line.
#[derive(Debug)]
pub(super) enum Start {
    Request { method: String, target: String, version: Option<HttpVersion> },
    Status { status: u16, version: Option<HttpVersion> },
}

/// A whole head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) start: Start,
    fields: Vec<(String, String)>,
}

/// How a body's length is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    NotSaid,
}

/// For each first letter, which second bytes the words of first lines have, by their lower five bits.
const SECONDS: [u32; 26] = seconds();

const fn seconds() -> [u32; 26] {
    let lists: [&[&str]; 3] = [METHODS, LONG_METHODS, &["HTTP/", "ICY", "M-"]];
    let mut seconds = [0; 26];
    let mut list = 0;
    while list < lists.len() {
        let mut word = 0;
        while word < lists[list].len() {
            let bytes = lists[list][word].as_bytes();
            seconds[(bytes[0] - b'A') as usize] |= 1 << (bytes[1] & 31);
            word += 1;
        }
        list += 1;
    }
    seconds
}

/// Whether two bytes tell that no first line begins here. Most bytes that are asked about are a body's or
/// another protocol's, and a body of text has capital letters too.
fn is_nothing(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first() else { return false };
    match (SECONDS.get(usize::from(first.wrapping_sub(b'A'))), bytes.get(1)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(seconds), Some(second)) => seconds & 1 << (second & 31) == 0,
    }
}

/// Whether these first bytes of a line may become a request or status line.
pub(super) fn may_begin(bytes: &[u8]) -> bool {
    if is_nothing(bytes) {
        return false;
    }
    let begins = |word: &[u8]| {
        let known = bytes.len().min(word.len());
        bytes[..known] == word[..known]
    };
    let method = bytes.strip_prefix(MANDATORY).unwrap_or(bytes);
    let begins_method = |name: &&str| {
        let name = name.as_bytes();
        if method.first().is_some_and(|first| *first != name[0]) {
            return false;
        }
        let known = method.len().min(name.len());
        method[..known] == name[..known]
            && method.get(name.len()).is_none_or(|next| matches!(next, b' ' | b'\r' | b'\n'))
    };
    begins(b"HTTP/") || begins(b"ICY") || METHODS.iter().chain(LONG_METHODS).any(begins_method)
}

impl Start {
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        if line.starts_with(b"HTTP/") || line.starts_with(b"ICY") {
            return Some(Self::status(line));
        }
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let method = line[..space].strip_prefix(MANDATORY).unwrap_or(&line[..space]);
        let method = str::from_utf8(method).ok()?;
        if !METHODS.contains(&method) && !LONG_METHODS.contains(&method) {
            return None;
        }
        let rest = line.get(space + 1..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        Some(Self::Request {
            method: text::ascii(&line[..space]),
            target: text::ascii(&rest[..end]),
            version: line.len().checked_sub(8).and_then(|at| version(&line[at..])),
        })
    }

    fn status(line: &[u8]) -> Self {
        let code = line
            .split(|byte| *byte == b' ')
            .find(|word| word.first().is_some_and(u8::is_ascii_digit));
        let code = code.and_then(|code| str::from_utf8(code.get(..3)?).ok()?.parse().ok());
        Self::Status { status: code.unwrap_or(0), version: version(line) }
    }

    /// Whether it says which HTTP it is, as every line since HTTP/1.0 does.
    pub(super) fn versioned(&self) -> bool {
        match self {
            Self::Request { version, .. } | Self::Status { version, .. } => version.is_some(),
        }
    }
}

fn version(bytes: &[u8]) -> Option<HttpVersion> {
    let (name, digit) = bytes.get(..8)?.split_at(7);
    if !name.eq_ignore_ascii_case(b"HTTP/1.") {
        return None;
    }
    Some(if digit == b"0" { HttpVersion::Http10 } else { HttpVersion::Http11 })
}

impl Head {
    /// Reads first line and fields, as far as they are there.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let first = Line::first_or_rest(bytes);
        let start = Start::read(first.text)?;
        let mut fields = Vec::new();
        let mut rest = &bytes[first.end..];
        while !rest.is_empty() && fields.len() < MAX_FIELDS {
            let line = Line::first_or_rest(rest);
            // A line that is no field ends what can be told about the head.
            let Some(colon) = line.text.iter().position(|byte| *byte == b':') else { break };
            let (name, value) = (&line.text[..colon], &line.text[colon + 1..]);
            let blank = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            if !name.is_empty() && name.iter().all(|byte| is_token(*byte)) {
                fields.push((text::ascii(name), text::utf8(&value[blank..])));
            }
            rest = &rest[line.end..];
        }
        Some(Self { start, fields })
    }

    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|field| field.0.eq_ignore_ascii_case(name));
        found.map(|field| field.1.as_str())
    }

    /// How the body's length is said. A transfer coding outweighs a length (RFC 9112 section 6.3).
    pub(super) fn body(&self) -> Body {
        let chunked = self
            .field("transfer-encoding")
            .and_then(|coding| coding.get(..7))
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        if chunked {
            return Body::Chunked;
        }
        // Of several lengths the last one counts, as Wireshark has it; servers refuse such a request.
        let lengths = self.fields.iter().rev();
        let said = |name: &str| name.eq_ignore_ascii_case("content-length");
        let length =
            lengths.filter(|field| said(&field.0)).find_map(|field| field.1.trim().parse().ok());
        match length {
            Some(length) if length <= MAX_CONTENT_LENGTH => Body::Length(length),
            Some(_) | None => Body::NotSaid,
        }
    }

    pub(super) fn fact(self) -> Fact {
        let host = self.field("host").map(str::to_owned);
        let or_old = |version: Option<HttpVersion>| version.unwrap_or(HttpVersion::Http10);
        match self.start {
            Start::Request { method, target, version } => Fact::HttpRequest(HttpRequest {
                version: or_old(version),
                method,
                target,
                host,
                headers: self.fields,
            }),
            Start::Status { status, version } => Fact::HttpResponse(HttpResponse {
                version: or_old(version),
                status,
                headers: self.fields,
            }),
        }
    }
}

/// What may stand in a field name (RFC 9110 section 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}
