//! What the QUIC versions differ in, as far as the first packets of a client go.

/// How frames are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    /// RFC 9000 section 12.4.
    Ietf,
    /// Google's, with IETF's CRYPTO frame; padding takes the rest of the packet.
    Google,
}

/// How a version protects Initials (RFC 9001 section 5.2, RFC 9369 section 3.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scheme {
    pub(super) salt: [u8; 20],
    pub(super) key: &'static str,
    pub(super) iv: &'static str,
    pub(super) hp: &'static str,
    /// Long header packet types of Initial and Retry.
    pub(super) initial: u8,
    pub(super) retry: u8,
    pub(super) frames: Frames,
}

/// Version 1 and its drafts, but for the salt.
const fn draft(salt: [u8; 20]) -> Scheme {
    Scheme {
        salt,
        key: "quic key",
        iv: "quic iv",
        hp: "quic hp",
        initial: 0,
        retry: 3,
        frames: Frames::Ietf,
    }
}

/// RFC 9001 section 5.2, and drafts 33 and 34.
const V1: Scheme = draft([
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
]);
/// Drafts 29 to 32 of RFC 9001.
const DRAFT_29: Scheme = draft([
    0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0,
    0x43, 0x90, 0xa8, 0x99,
]);
/// Drafts 23 to 28.
const DRAFT_23: Scheme = draft([
    0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7, 0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65,
    0xbe, 0xf9, 0xf5, 0x02,
]);
/// Draft 22; headers of earlier drafts are laid out differently.
const DRAFT_22: Scheme = draft([
    0x7f, 0xbc, 0xdb, 0x0e, 0x7c, 0x66, 0xbb, 0xe9, 0x19, 0x3a, 0x96, 0xcd, 0x21, 0x51, 0x9e, 0xbd,
    0x7a, 0x02, 0x64, 0x4a,
]);
/// RFC 9369 sections 3.2 and 3.3.
const V2: Scheme = Scheme {
    salt: [
        0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d,
        0xcb, 0xf9, 0xbd, 0x2e, 0xd9,
    ],
    key: "quicv2 key",
    iv: "quicv2 iv",
    hp: "quicv2 hp",
    initial: 1,
    retry: 0,
    frames: Frames::Ietf,
};
/// Chromium's T050 (`net/third_party/quiche`, initial salts).
const T050: Scheme = Scheme {
    frames: Frames::Google,
    ..draft([
        0x7f, 0xf5, 0x79, 0xe5, 0xac, 0xd0, 0x72, 0x91, 0x55, 0x80, 0x30, 0x4c, 0x43, 0xa2, 0x36,
        0x7c, 0x60, 0x48, 0x83, 0x10,
    ])
};
/// Chromium's T051.
const T051: Scheme = Scheme {
    frames: Frames::Google,
    ..draft([
        0x7a, 0x4e, 0xde, 0xf4, 0xe7, 0xcc, 0xee, 0x5f, 0xa4, 0x50, 0x6c, 0x19, 0x12, 0x4f, 0xc8,
        0xcc, 0xda, 0x6e, 0x03, 0x3d,
    ])
};

/// The schemes to try for a version, the likeliest first; none for a version that is not known.
pub(super) fn schemes(version: u32) -> &'static [Scheme] {
    match version {
        1 | 0xff00_0021..=0xff00_0022 => &[V1],
        0x6b33_43cf => &[V2],
        0xff00_001d..=0xff00_0020 => &[DRAFT_29],
        0xff00_0017..=0xff00_001c => &[DRAFT_23],
        0xff00_0016 => &[DRAFT_22],
        // Facebook's mvfst, on drafts 22 and 27.
        0xface_b001 => &[DRAFT_22],
        0xface_b002 | 0xface_b00e => &[DRAFT_23],
        0x5430_3530 => &[T050],
        0x5430_3531 => &[T051],
        // Asks for version negotiation (RFC 9000 section 15), protected as the client likes.
        _ if version & 0x0f0f_0f0f == 0x0a0a_0a0a => &[DRAFT_29, V1],
        _ => &[],
    }
}
