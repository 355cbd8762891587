//! For tests: readers fed as a flow feeds them.

use proptest::prelude::*;

use super::{Fact, Step};

/// The facts of a stream that comes in these segments, and whether it was read to its end.
pub(super) fn drive<'s>(
    mut step: impl FnMut(&[u8]) -> Step,
    segments: impl IntoIterator<Item = &'s [u8]>,
) -> (Vec<Fact>, bool) {
    let mut facts = Vec::new();
    let mut buffer = Vec::new();
    let mut skip = 0u64;
    for segment in segments {
        let skipped = skip.min(segment.len() as u64);
        skip -= skipped;
        buffer.extend_from_slice(&segment[skipped as usize..]);
        while !buffer.is_empty() {
            match step(&buffer) {
                Step::More => break,
                Step::Took { consumed, facts: more } => {
                    assert!(consumed > 0, "a step that takes nothing never ends");
                    facts.extend(more);
                    let drained = consumed.min(buffer.len() as u64);
                    skip = consumed - drained;
                    buffer.drain(..drained as usize);
                }
                Step::Not => return (facts, false),
            }
        }
    }
    (facts, buffer.is_empty())
}

/// The stream in one segment.
pub(super) fn whole(step: impl FnMut(&[u8]) -> Step, stream: &[u8]) -> (Vec<Fact>, bool) {
    drive(step, [stream])
}

/// The stream cut at these places, each taken modulo its length.
pub(super) fn split<'s>(stream: &'s [u8], cuts: &[prop::sample::Index]) -> Vec<&'s [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

/// Where to cut.
pub(super) fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..40)
}
