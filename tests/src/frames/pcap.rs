//! Frames as a capture file: classic pcap (draft-ietf-opsawg-pcap), Ethernet, microseconds.

/// When a capture made here begins, in seconds since 1970.
pub const BEGIN: u32 = 1_700_000_000;

/// The file's header.
pub fn header() -> Vec<u8> {
    const ETHERNET: u32 = 1;
    const SNAP_LENGTH: u32 = 65_535;
    let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    bytes.extend([2, 0, 4, 0]);
    bytes.extend([0; 8]);
    bytes.extend(SNAP_LENGTH.to_le_bytes());
    bytes.extend(ETHERNET.to_le_bytes());
    bytes
}

/// One frame, so many microseconds after [`BEGIN`].
///
/// # Panics
/// When a frame or a time is beyond what 32 bits hold.
pub fn record(micros: u64, frame: &[u8]) -> Vec<u8> {
    let seconds = BEGIN + u32::try_from(micros / 1_000_000).expect("seconds of 32 bits");
    let length = u32::try_from(frame.len()).expect("a frame");
    let words = [seconds, (micros % 1_000_000) as u32, length, length];
    words.iter().flat_map(|word| word.to_le_bytes()).chain(frame.iter().copied()).collect()
}

/// A whole file, its frames a millisecond apart.
pub fn file(frames: &[Vec<u8>]) -> Vec<u8> {
    let records = (0..).zip(frames).flat_map(|(number, frame)| record(number * 1_000, frame));
    header().into_iter().chain(records).collect()
}
