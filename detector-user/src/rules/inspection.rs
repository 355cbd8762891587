//! What the rules of an application need user space to see: see [`detector_common::inspect`].

use detector_common::{inspect::want, rule::ApplicationEntry};

use super::model::{Rule, Signature};

/// The application's bits and patterns; everything else of the entry is left at zero.
pub(super) fn inspection<'a>(rules: impl Iterator<Item = &'a Rule>) -> ApplicationEntry {
    let mut entry = ApplicationEntry::default();
    for rule in rules {
        entry.inspect |= match rule.signature() {
            Some(Signature::HttpRequest(_)) => want::CUT_REQUESTS,
            Some(
                Signature::TcpOpened
                | Signature::UdpFirstPacket
                | Signature::SessionStarted
                | Signature::SessionEnded,
            )
            | None => 0,
        };
    }
    entry
}
