//! Rule tables: how checked rules lie in memory for the classifier.
//!
//! Three ideas keep the cost of a packet independent of the number of rules:
//!
//! * Every exact look-up (application address, endpoint, UE address, path prefix) goes to one
//!   read-only hash table of [`Bucket`]s. It is built by user space, never written by the kernel,
//!   and lives in an array map: a probe costs a few ns where the kernel's own hash map costs 30.
//! * Prefixes are probed once per *distinct prefix length*, longest first ([`PrefixMasks`]).
//!   Shorter prefixes that also apply are folded into the longer one when the tables are built.
//! * What a packet may match is a [`Row`], a bit per rule, for each dimension (application, UE,
//!   what was seen, path); the rules that match are the AND of four rows.
//!
//! Two copies of every table exist, in two *slots* ([`Slot`]). A reload fills the idle slot and then
//! flips the one word that says which slot is active, which a packet reads once.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    http::HttpMethod,
    packet::{Address, Direction},
};

/// Rules of one generation.
pub const MAX_RULES: usize = 1024;
/// Applications of one generation.
pub const MAX_APPLICATIONS: usize = 1024;
/// Words of a row.
pub const ROW_WORDS: usize = MAX_RULES / 64;
/// Rows of one generation.
pub const MAX_ROWS: usize = 8192;
/// Hash buckets of one generation; a power of two.
pub const MAX_BUCKETS: usize = 16384;
/// Entries of one bucket.
pub const BUCKET_ENTRIES: usize = 4;
/// Distinct prefix lengths per address family and table.
pub const MAX_PREFIX_LENGTHS: usize = 8;
/// Words of the filter of DNS names; a power of two.
pub const NAME_WORDS: usize = 4096;
/// Words of four port classes: TCP ports, then UDP ports.
pub const PORT_WORDS: usize = 2 * 65536 / 4;
/// Copies of each table: one is active, the other is filled by a reload.
pub const SLOTS: usize = 2;

/// The rules that one value of one dimension allows, a bit a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Row(pub [u64; ROW_WORDS]);

impl Row {
    /// No rule.
    pub const NONE: Self = Self([0; ROW_WORDS]);
    /// Every rule.
    pub const ALL: Self = Self([u64::MAX; ROW_WORDS]);

    /// The rules that either allows.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// The rules that both allow.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

/// Numbers of the rows that every generation has. Those of applications, UE prefixes and path
/// prefixes follow from [`row::FIRST_FREE`] on.
pub mod row {
    use super::{Direction, HttpMethod};

    /// Every rule.
    pub const ALL: u32 = 0;
    /// Rules for any path, and those with a path too short for the table.
    pub const ANY_PATH: u32 = 1;
    /// Rules for any UE.
    pub const ANY_UE: u32 = 2;
    /// What can be recognised: an opened TCP connection, the first packet of a UDP flow, and a
    /// request of each of the methods.
    pub const KINDS: u32 = 2 + HttpMethod::ALL.len() as u32;
    /// The kind of an opened TCP connection.
    pub const TCP_OPENED: u32 = 0;
    /// The kind of the first packet of a UDP flow.
    pub const UDP_FIRST: u32 = 1;
    /// The kind of an HTTP request.
    #[inline(always)]
    pub const fn http(method: HttpMethod) -> u32 {
        UDP_FIRST + method as u32
    }
    /// Rules for one kind, in one direction, inside a session or outside of one: three dimensions
    /// with few values, so that a packet looks at one row for all of them.
    #[inline(always)]
    pub const fn seen(kind: u32, direction: Direction, in_session: bool) -> u32 {
        3 + (kind * 2 + direction as u32) * 2 + in_session as u32
    }
    /// Rules that user space decides and a request of this kind may match, see
    /// [`crate::request_gate`].
    #[inline(always)]
    pub const fn gated(http_kind: u32) -> u32 {
        3 + KINDS * 4 + http_kind - UDP_FIRST - 1
    }
    /// The first number that is free for other rows.
    pub const FIRST_FREE: u32 = 3 + KINDS * 4 + HttpMethod::ALL.len() as u32;
}

/// What a hash entry stands for; part of its key. 0 marks an empty entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u32);

impl Tag {
    /// An address or prefix at which an application is served -> its address class, or the application
    /// itself ([`DIRECT`]).
    /// `length` counts in the IPv4-mapped form, 0 to 128.
    pub const fn application_prefix(length: u8) -> Self {
        Self(0x0100 | length as u32)
    }
    /// A prefix of UE addresses -> the row of its rules.
    pub const fn ue_prefix(length: u8) -> Self {
        Self(0x0200 | length as u32)
    }
    /// (address class, port class) -> application.
    pub const ENDPOINT: Self = Self(0x0300);
    /// The first `length` bytes of a path -> the row of its rules.
    pub const fn path_prefix(length: usize) -> Self {
        Self(0x0400 | length as u32)
    }
}

/// The port class that stands for "every port" in an endpoint's key; `| protocol`.
pub const ANY_PORT: u64 = 0x1_0000;

/// Set in the value of an application prefix where nothing but one application's endpoints are, all of one
/// protocol and range of ports: the rest is its number and [`DIRECT_UDP`], and there are no classes to look
/// up.
pub const DIRECT: u32 = 1 << 31;
/// With [`DIRECT`]: its endpoints are of UDP, else of TCP.
pub const DIRECT_UDP: u32 = 1 << 30;

/// One bucket of the read-only hash table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// Keys.
    pub keys: [[u64; 2]; BUCKET_ENTRIES],
    /// [`Tag`]s; 0 for an empty entry. Entries are filled from the front.
    pub tags: [u32; BUCKET_ENTRIES],
    /// What is found.
    pub values: [u32; BUCKET_ENTRIES],
}

impl Bucket {
    /// No entry.
    pub const EMPTY: Self = Self {
        keys: [[0; 2]; BUCKET_ENTRIES],
        tags: [0; BUCKET_ENTRIES],
        values: [0; BUCKET_ENTRIES],
    };
}

/// One prefix length that some prefix of a table has.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PrefixMask {
    /// Bits of the address that count.
    pub mask: Address,
    /// The tag under which prefixes of this length are found.
    pub tag: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The distinct prefix lengths of one table and address family, longest first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PrefixMasks {
    /// How many of `lengths` are used.
    pub count: u32,
    /// Always 0.
    pub reserved: u32,
    /// Longest first.
    pub lengths: [PrefixMask; MAX_PREFIX_LENGTHS],
}

/// Head of one generation's tables.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Generation {
    /// Counts up with each set of rules; never 0 once rules are loaded.
    pub generation: u32,
    /// 1 when only addresses inside a UE pool are UEs, 0 when every peer of an application is.
    pub has_ue_pools: u32,
    /// Seed of the hash table.
    pub seed: u64,
    /// Number of buckets minus one.
    pub bucket_mask: u32,
    /// A bit for each of [`crate::http::PATH_PREFIX_LENGTHS`] that some rule's path has.
    pub path_lengths: u32,
    /// Where applications are served, IPv4.
    pub application_v4: PrefixMasks,
    /// Where applications are served, IPv6.
    pub application_v6: PrefixMasks,
    /// UE pools and UE prefixes of rules, IPv4.
    pub ue_v4: PrefixMasks,
    /// UE pools and UE prefixes of rules, IPv6.
    pub ue_v6: PrefixMasks,
}

/// One generation's tables in the kernel's memory. One value of one map: a packet looks it up once, and what
/// it wants of it is an addition, not another look-up (2.5 ns). Older kernels refuse values of more than 4 MiB
/// (`KMALLOC_MAX_SIZE`).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slot {
    /// The head.
    pub generation: Generation,
    /// The read-only hash table.
    pub buckets: [Bucket; MAX_BUCKETS],
    /// Port classes in words of four: TCP, then UDP.
    pub ports: [[u16; 4]; PORT_WORDS],
    /// The filter of DNS names.
    pub names: [u64; NAME_WORDS],
    /// Rows.
    pub rows: [Row; MAX_ROWS],
    /// Applications.
    pub applications: [ApplicationEntry; MAX_APPLICATIONS],
    /// Rules.
    pub rules: [RuleEntry; MAX_RULES],
}

const _: () = assert!(size_of::<Slot>() <= 4 << 20);

/// Set in the value of a UE prefix that lies in a UE pool; the rest is the row.
pub const IN_UE_POOL: u32 = 1 << 31;

/// One application.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ApplicationEntry {
    /// Stable over reloads: a hash of the name.
    pub id: u32,
    /// The row of its rules.
    pub row: u32,
    /// 1 when one of its rules asks for the first packet of UDP flows.
    pub tracks_udp: u16,
    /// How many of `patterns` are used.
    pub pattern_count: u16,
    /// The first word of its row that is not 0: only words from there to `last_word` are ANDed, so
    /// that an application pays for its own rules and not for all.
    pub first_word: u32,
    /// The last word of its row that is not 0; before `first_word` if it has no rules.
    pub last_word: u32,
    /// What user space must be shown of it: bits of [`crate::inspect::want`].
    pub inspect: u32,
    /// The first and the last port of all its endpoints, if prefixes lead to it [`DIRECT`]ly.
    pub ports: [u16; 2],
    /// The most payload bytes that one of its HTTP rules looks at: a request line is only told to be
    /// cut in a segment shorter than this.
    pub request_capture: u32,
    /// With [`crate::inspect::want::PAYLOAD`]: what a payload must begin with, one of them.
    pub patterns: [Pattern; MAX_PATTERNS],
}

/// Patterns of one application; rules that need more see every payload.
pub const MAX_PATTERNS: usize = 4;

/// Up to eight bytes that must stand in a payload.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Pattern {
    /// The bits that count, in the order of the bytes.
    pub mask: u64,
    /// What they must be; 0 where `mask` is.
    pub value: u64,
    /// Where, in bytes from the payload's start.
    pub offset: u32,
    /// Always 0.
    pub reserved: u32,
}

/// What the kernel needs of one rule once it matched.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RuleEntry {
    /// Stable over reloads: a hash of the name.
    pub id: u32,
    /// Payload bytes to copy, at most [`crate::event::MAX_CAPTURE`].
    pub capture: u16,
    /// 1 if its records may use all of the ring buffer, see [`crate::event::FLAG_IMPORTANT`].
    pub important: u16,
    /// Suppression window per UE in ns; 0 for none.
    pub window_ns: u64,
}

/// One generation's tables, wherever they are: a [`Slot`] in the kernel, vectors in replay.
pub trait Tables {
    /// The head.
    fn generation(&self) -> Option<&Generation>;
    /// A hash bucket.
    fn bucket(&self, index: u32) -> Option<&Bucket>;
    /// Port classes `index * 4 .. index * 4 + 4`.
    fn ports(&self, index: u32) -> Option<&[u16; 4]>;
    /// A word of the filter of DNS names, see [`crate::dns_name`].
    fn names(&self, index: u32) -> Option<&u64>;
    /// A row.
    fn row(&self, index: u32) -> Option<&Row>;
    /// An application.
    fn application(&self, index: u32) -> Option<&ApplicationEntry>;
    /// A rule.
    fn rule(&self, index: u32) -> Option<&RuleEntry>;
}
