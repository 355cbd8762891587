//! What each fuzz target does with its bytes. The fuzzing programs (`targets/`) call these, and so
//! does an ordinary test (`tests/tests/fuzz_regressions.rs`), which needs neither cargo-fuzz nor
//! libFuzzer, on every input that once failed (`regressions/`).

mod conversation;
mod datagrams;
mod input;
mod notes;
mod packets;
mod served;
mod spool;
mod streams;
mod text;

/// Looks at bytes, and panics when what must hold does not.
pub type Target = fn(&[u8]);

/// Every target, under the name of its program.
pub const TARGETS: [(&str, Target); 22] = [
    ("parse", packets::parse),
    ("classify", packets::classify),
    ("capture", packets::capture),
    ("record", packets::record),
    ("rules", text::rules),
    ("config", text::config),
    ("manifests", text::manifests),
    ("reassembly", streams::reassembly),
    ("dns", datagrams::dns),
    ("quic", datagrams::quic),
    ("coap", datagrams::coap),
    ("http1", streams::http1),
    ("h2", streams::h2),
    ("tls", streams::tls),
    ("mqtt", streams::mqtt),
    ("proxy", streams::proxy),
    ("conversation", conversation::conversation),
    ("notes", notes::notes),
    ("spool", spool::spool),
    ("dead_letters", spool::dead_letters),
    ("control_socket", served::control_socket),
    ("broker", served::broker),
];

/// Runs one target.
///
/// # Panics
/// When the input is a finding, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("no fuzz target {name}")).1(bytes);
}
