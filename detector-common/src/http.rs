//! The start of an HTTP/1 request line (RFC 9112 section 3).

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
