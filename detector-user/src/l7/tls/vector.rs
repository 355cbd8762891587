//! The presentation language of TLS (RFC 8446 section 3): integers and vectors, read from a
//! message of which perhaps only the first bytes were captured.

/// Why reading ended before the message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes end before the message does.
    Cut,
    /// A length says more than what is around it.
    Damaged,
}

/// The rest of a message, or of a vector inside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest<'a> {
    bytes: &'a [u8],
    /// Declared, behind `bytes`, but not there.
    missing: usize,
}

impl<'a> Rest<'a> {
    /// A message of `length` bytes, of which those in `bytes` are there.
    pub(super) fn new(bytes: &'a [u8], length: usize) -> Self {
        let bytes = bytes.get(..length).unwrap_or(bytes);
        Self { bytes, missing: length - bytes.len() }
    }

    /// No declared byte is left.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that are there.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether bytes are missing at the end.
    pub(super) fn is_cut(&self) -> bool {
        self.missing > 0
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.missing
    }

    /// The next `length` declared bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<Self, Stop> {
        if length > self.len() {
            return Err(Stop::Damaged);
        }
        let there = length.min(self.bytes.len());
        let (front, back) = self.bytes.split_at(there);
        let gone = length - there;
        self.bytes = back;
        self.missing -= gone;
        Ok(Self { bytes: front, missing: gone })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let front = self.take(N)?;
        front.bytes.try_into().map_err(|_| Stop::Cut)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Stop> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_be_bytes)
    }

    /// A vector with a length of one byte.
    pub(super) fn vector8(&mut self) -> Result<Self, Stop> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A vector with a length of two bytes.
    pub(super) fn vector16(&mut self) -> Result<Self, Stop> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// The 16-bit numbers that are there, in order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.bytes.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair))
    }
}
