//! Bodies that are DNS messages (RFC 8484, which asks for TLS, but not everybody does).

use std::collections::HashMap;

use crate::l7::fact::{DnsMessage, HttpRequest, HttpResponse};
use crate::l7::{Fact, dns};

/// Bodies of so many streams at a time are read; those of more are passed over.
const MAX_STREAMS: usize = 64;
/// A longer body is not read; a query has some 50 bytes.
const MAX_BODY: usize = 4096;

const DNS_MESSAGE: &str = "application/dns-message";

/// The bodies of one direction that are not whole yet, by stream.
#[derive(Debug, Default)]
pub(super) struct Bodies(HashMap<u32, Vec<u8>>);

impl Bodies {
    /// A head was read that has a body behind it.
    pub(super) fn begin(&mut self, stream: u32, head: &Fact) {
        if is_dns(head) && self.0.len() < MAX_STREAMS {
            self.0.insert(stream, Vec::new());
        }
    }

    /// Whether data of this stream is to be read.
    pub(super) fn wants(&self, stream: u32) -> bool {
        self.0.contains_key(&stream)
    }

    /// Bytes of all of them.
    pub(super) fn kept(&self) -> usize {
        self.0.values().map(|body| size_of::<(u32, Vec<u8>)>() + body.len()).sum()
    }

    /// Forgets a stream.
    pub(super) fn drop(&mut self, stream: u32) {
        self.0.remove(&stream);
    }

    /// Adds data; gives the message once it is whole.
    pub(super) fn add(&mut self, stream: u32, data: &[u8], end: bool) -> Option<DnsMessage> {
        let body = self.0.get_mut(&stream)?;
        body.extend_from_slice(data);
        match (body.len() > MAX_BODY, end) {
            (true, _) => {
                self.drop(stream);
                None
            }
            (false, true) => self.0.remove(&stream).and_then(|body| dns::message(&body)),
            (false, false) => None,
        }
    }
}

fn is_dns(head: &Fact) -> bool {
    let (Fact::HttpRequest(HttpRequest { headers, .. })
    | Fact::HttpResponse(HttpResponse { headers, .. })) = head
    else {
        return false;
    };
    headers
        .iter()
        .any(|(name, value)| name == "content-type" && value.eq_ignore_ascii_case(DNS_MESSAGE))
}
