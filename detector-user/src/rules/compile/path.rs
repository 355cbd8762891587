//! Request paths, cut to the lengths that the packet path looks up.

use std::collections::BTreeSet;

use detector_common::{
    http::PATH_PREFIX_LENGTHS,
    lookup::path_key,
    rule::{Row, Tag},
};

use super::Builder;
use crate::rules::{
    model::{PathMatch, Signature},
    table::Entry,
};

impl Builder<'_> {
    /// Path prefixes of the table's lengths -> rows. A longer prefix also has the rules of its
    /// own shorter ones and of those that ask for no path.
    pub(super) fn paths(&mut self) {
        let mut keys: BTreeSet<Vec<u8>> = BTreeSet::new();
        for signature in self.signatures.iter().flatten() {
            if let Some(prefix) = kernel_path(signature) {
                keys.insert(prefix.to_vec());
            }
        }
        for gate in self.gates.iter().flatten() {
            keys.extend(gate.starts().map(<[u8]>::to_vec));
        }
        for key in keys {
            let length = PATH_PREFIX_LENGTHS.iter().position(|length| *length == key.len());
            self.path_lengths |= length.map_or(0, |place| 1 << place);
            let row = self.path_row(&key);
            let value = self.row_number(row);
            self.entries.push(Entry {
                key: path_key(words(&key)),
                tag: Tag::path_prefix(key.len()),
                value,
            });
        }
    }

    /// The rules that a request whose path begins with `start` (a table prefix, or nothing) may match.
    pub(super) fn path_row(&self, start: &[u8]) -> Row {
        let decided = self.select_signature(|signature| path_allows(signature, start));
        decided.or(&self.select_gate(|gate| gate.allows_path(start)))
    }
}

/// The part of a rule's path that the kernel looks up, if the path is long enough for one.
fn kernel_path(signature: &Signature) -> Option<&[u8]> {
    let Signature::HttpRequest(http) = signature else { return None };
    let path = match &http.path {
        PathMatch::Any => return None,
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_bytes(),
    };
    let length = PATH_PREFIX_LENGTHS.into_iter().find(|length| *length <= path.len())?;
    Some(&path[..length])
}

/// Whether a request whose path begins with `start` (a table prefix, or nothing) may match.
fn path_allows(signature: &Signature, start: &[u8]) -> bool {
    match signature {
        Signature::HttpRequest(_) => {
            kernel_path(signature).is_none_or(|path| start.starts_with(path))
        }
        Signature::TcpOpened
        | Signature::UdpFirstPacket
        | Signature::SessionStarted
        | Signature::SessionEnded => false,
    }
}

/// Up to 32 bytes as the packet path loads them: words of the machine's order, 0 beyond the end.
fn words(bytes: &[u8]) -> [u64; 4] {
    let mut padded = [0u8; 32];
    padded[..bytes.len()].copy_from_slice(bytes);
    std::array::from_fn(|n| u64::from_ne_bytes(std::array::from_fn(|byte| padded[n * 8 + byte])))
}
