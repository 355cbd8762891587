//! Streams in any order and any pieces say the same.
