//! Why a packet could not be read to its ports.

use crate::counter::Counter;

/// Why a packet could not be read to the end. Each is a counter: see [`ParseFault::counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseFault {
    /// Shorter than its link-layer header.
    TruncatedLink,
    /// Neither IPv4 nor IPv6 (ARP, LLDP, ...).
    NotIp,
    /// More than [`super::MAX_VLAN_TAGS`] VLAN tags.
    TooManyVlanTags,
    /// More than [`super::MAX_MPLS_LABELS`] MPLS labels.
    TooManyMplsLabels,
    /// Shorter than its IP header.
    TruncatedIp,
    /// A version or header length that no IP packet has.
    BadIp,
    /// Not the first fragment: it has no ports.
    LaterFragment,
    /// More than [`super::MAX_IPV6_EXTENSIONS`] extension headers.
    TooManyIpv6Extensions,
    /// Neither TCP nor UDP nor a tunnel (ICMP, SCTP, ESP, ...).
    OtherTransport,
    /// Shorter than its transport header.
    TruncatedTransport,
    /// A TCP header length below five words.
    BadTcp,
    /// Shorter than its GRE or VXLAN header.
    TruncatedTunnel,
    /// GRE with a payload or a version that is not read (PPTP, ERSPAN, source routing, ...).
    OtherGre,
    /// More than [`super::MAX_TUNNELS`] tunnels in each other.
    TooManyTunnels,
    /// Shorter than its GTP-U header.
    TruncatedGtpu,
    /// More extension headers than [`super::MAX_GTPU_EXTENSIONS`].
    TooManyGtpuExtensions,
    /// A GTP-U extension header of length zero.
    BadGtpuExtension,
    /// The user's packet is neither IP nor Ethernet (unstructured PDU sessions).
    GtpuNotIp,
}

impl ParseFault {
    /// Every fault.
    pub const ALL: [Self; 18] = [
        Self::TruncatedLink,
        Self::NotIp,
        Self::TooManyVlanTags,
        Self::TooManyMplsLabels,
        Self::TruncatedIp,
        Self::BadIp,
        Self::LaterFragment,
        Self::TooManyIpv6Extensions,
        Self::OtherTransport,
        Self::TruncatedTransport,
        Self::BadTcp,
        Self::TruncatedTunnel,
        Self::OtherGre,
        Self::TooManyTunnels,
        Self::TruncatedGtpu,
        Self::TooManyGtpuExtensions,
        Self::BadGtpuExtension,
        Self::GtpuNotIp,
    ];

    /// The counter of this fault.
    #[inline(always)]
    pub const fn counter(self) -> Counter {
        match self {
            Self::TruncatedLink => Counter::TruncatedLink,
            Self::NotIp => Counter::NotIp,
            Self::TooManyVlanTags => Counter::TooManyVlanTags,
            Self::TooManyMplsLabels => Counter::TooManyMplsLabels,
            Self::TruncatedIp => Counter::TruncatedIp,
            Self::BadIp => Counter::BadIp,
            Self::LaterFragment => Counter::LaterFragment,
            Self::TooManyIpv6Extensions => Counter::TooManyIpv6Extensions,
            Self::OtherTransport => Counter::OtherTransport,
            Self::TruncatedTransport => Counter::TruncatedTransport,
            Self::BadTcp => Counter::BadTcp,
            Self::TruncatedTunnel => Counter::TruncatedTunnel,
            Self::OtherGre => Counter::OtherGre,
            Self::TooManyTunnels => Counter::TooManyTunnels,
            Self::TruncatedGtpu => Counter::TruncatedGtpu,
            Self::TooManyGtpuExtensions => Counter::TooManyGtpuExtensions,
            Self::BadGtpuExtension => Counter::BadGtpuExtension,
            Self::GtpuNotIp => Counter::GtpuNotIp,
        }
    }
}
