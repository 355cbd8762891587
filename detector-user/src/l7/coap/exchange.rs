//! Requests and responses of one peer: a response has nothing but a token to say what it is about.

use std::collections::HashMap;

use super::{CoapMessage, Frame, message, option};
use crate::l7::{Fact, Step};

/// Tokens remembered for one peer. More requests under way are not usual (NSTART is 1, RFC 7252
/// section 4.7); a client that never uses a token twice makes the memory begin anew.
const MAX_TOKENS: usize = 256;
/// Of a longer message over TCP only so much is read: options are in front of the payload.
const MAX_READ: u64 = 4096;

/// What one flow's requests asked for, by token. For both directions of a flow.
#[derive(Debug, Default)]
pub struct Exchanges {
    asked: HashMap<Vec<u8>, String>,
    /// Bytes of them.
    kept: usize,
}

impl Exchanges {
    /// Reads one datagram, of either direction.
    pub fn datagram(&mut self, bytes: &[u8]) -> Option<CoapMessage> {
        message(bytes).map(|message| self.tie(message))
    }

    /// Reads one message of a stream, of either direction (RFC 8323 section 3.2).
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        let Some(frame) = Frame::read(bytes) else { return Step::More };
        let consumed = frame.length();
        let Some(read) = bytes.get(..consumed.min(MAX_READ) as usize) else { return Step::More };
        let facts = self.framed(&frame, read).map(Fact::Coap).into_iter().collect();
        Step::Took { consumed, facts }
    }

    fn framed(&mut self, frame: &Frame, bytes: &[u8]) -> Option<CoapMessage> {
        let (&code, rest) = bytes.get(frame.head..)?.split_first()?;
        let (token, options) = rest.split_at_checked(frame.token)?;
        option::read(None, code, token, options).map(|message| self.tie(message))
    }

    /// Remembers a request, gives a response what it answers.
    fn tie(&mut self, mut message: CoapMessage) -> CoapMessage {
        if message.token.is_empty() || message.code == 0 {
            return message;
        }
        match (message.code >> 5, self.asked.get(&message.token)) {
            (0, None) => {
                if self.asked.len() == MAX_TOKENS {
                    self.asked.clear();
                    self.kept = 0;
                }
                self.kept += size_of::<(Vec<u8>, String)>();
                self.kept += message.token.len() + message.uri.len();
                self.asked.insert(message.token.clone(), message.uri.clone());
            }
            (2..=5, Some(uri)) => message.uri.clone_from(uri),
            (_, _) => {}
        }
        message
    }

    /// Bytes that are kept for answers to come.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.asked.len()
    }
}
