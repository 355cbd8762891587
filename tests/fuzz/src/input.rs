//! Cuts a fuzzer's bytes into what a target needs.

/// The most pieces that one input is cut into.
const MAX_PIECES: usize = 32;

/// One byte off the front.
pub(crate) fn byte(bytes: &mut &[u8]) -> u8 {
    let Some((first, rest)) = bytes.split_first() else { return 0 };
    *bytes = rest;
    *first
}

/// Pieces that each have their length before them (two bytes).
pub(crate) fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() && pieces.len() < MAX_PIECES {
        let length = usize::from(byte(&mut bytes)) << 8 | usize::from(byte(&mut bytes));
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// A stream, and a way to cut it: a count, so many places of two bytes, the stream.
pub(crate) fn stream(mut bytes: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let cuts = usize::from(byte(&mut bytes)) % MAX_PIECES;
    let places: Vec<usize> = (0..cuts)
        .map(|_| usize::from(byte(&mut bytes)) << 8 | usize::from(byte(&mut bytes)))
        .collect();
    let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    (bytes, places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect())
}
