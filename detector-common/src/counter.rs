//! Everything the packet path counts. Per CPU in the kernel, summed by the agent, exported as
//! Prometheus metrics under the names given here.

/// One counter of the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Counter {
    /// Packets that passed a hook.
    Packets,
    /// Their bytes.
    Bytes,
    /// Packets of no application.
    Unwatched,
    /// Packets of an application from or to an address outside the UE pools.
    NotUe,
    /// Packets of an application and a UE.
    Watched,
    /// Packets judged before any rules were loaded.
    NoRules,
    /// Sessions begun.
    SessionsStarted,
    /// Sessions that did not fit the session table.
    SessionTableFull,
    /// Session notices that did not fit the ring buffer; the session is found by the next sweep.
    NoticeRingFull,
    /// Packets that user space was shown to read itself.
    Inspected,
    /// Packets that user space was to read, and that did not fit the ring buffer.
    InspectRingFull,
    /// TCP segments that matched again because they were sent again.
    Retransmissions,
    /// Rules beyond [`crate::event::MAX_MATCHES`] that one packet matched.
    MatchesOverLimit,
    /// [`crate::parse::ParseFault::TruncatedLink`].
    TruncatedLink,
    /// [`crate::parse::ParseFault::NotIp`].
    NotIp,
    /// [`crate::parse::ParseFault::TooManyVlanTags`].
    TooManyVlanTags,
    /// [`crate::parse::ParseFault::TooManyMplsLabels`].
    TooManyMplsLabels,
    /// [`crate::parse::ParseFault::TruncatedIp`].
    TruncatedIp,
    /// [`crate::parse::ParseFault::BadIp`].
    BadIp,
    /// [`crate::parse::ParseFault::LaterFragment`].
    LaterFragment,
    /// [`crate::parse::ParseFault::TooManyIpv6Extensions`].
    TooManyIpv6Extensions,
    /// [`crate::parse::ParseFault::OtherTransport`].
    OtherTransport,
    /// [`crate::parse::ParseFault::TruncatedTransport`].
    TruncatedTransport,
    /// [`crate::parse::ParseFault::BadTcp`].
    BadTcp,
    /// [`crate::parse::ParseFault::TruncatedTunnel`].
    TruncatedTunnel,
    /// [`crate::parse::ParseFault::OtherGre`].
    OtherGre,
    /// [`crate::parse::ParseFault::TooManyTunnels`].
    TooManyTunnels,
    /// [`crate::parse::ParseFault::TruncatedGtpu`].
    TruncatedGtpu,
    /// [`crate::parse::ParseFault::TooManyGtpuExtensions`].
    TooManyGtpuExtensions,
    /// [`crate::parse::ParseFault::BadGtpuExtension`].
    BadGtpuExtension,
    /// [`crate::parse::ParseFault::GtpuNotIp`].
    GtpuNotIp,
}

/// How many counters there are.
pub const COUNTERS: usize = Counter::ALL.len();

impl Counter {
    /// Every counter, in the order of its number.
    pub const ALL: [Self; 31] = [
        Self::Packets,
        Self::Bytes,
        Self::Unwatched,
        Self::NotUe,
        Self::Watched,
        Self::NoRules,
        Self::SessionsStarted,
        Self::SessionTableFull,
        Self::NoticeRingFull,
        Self::Inspected,
        Self::InspectRingFull,
        Self::Retransmissions,
        Self::MatchesOverLimit,
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

    /// Its name in metrics and in `detector status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Unwatched => "unwatched",
            Self::NotUe => "not_ue",
            Self::Watched => "watched",
            Self::NoRules => "no_rules",
            Self::SessionsStarted => "sessions_started",
            Self::SessionTableFull => "session_table_full",
            Self::NoticeRingFull => "notice_ring_full",
            Self::Inspected => "inspected",
            Self::InspectRingFull => "inspect_ring_full",
            Self::Retransmissions => "retransmissions",
            Self::MatchesOverLimit => "matches_over_limit",
            Self::TruncatedLink => "truncated_link",
            Self::NotIp => "not_ip",
            Self::TooManyVlanTags => "too_many_vlan_tags",
            Self::TooManyMplsLabels => "too_many_mpls_labels",
            Self::TruncatedIp => "truncated_ip",
            Self::BadIp => "bad_ip",
            Self::LaterFragment => "later_fragment",
            Self::TooManyIpv6Extensions => "too_many_ipv6_extensions",
            Self::OtherTransport => "other_transport",
            Self::TruncatedTransport => "truncated_transport",
            Self::BadTcp => "bad_tcp",
            Self::TruncatedTunnel => "truncated_tunnel",
            Self::OtherGre => "other_gre",
            Self::TooManyTunnels => "too_many_tunnels",
            Self::TruncatedGtpu => "truncated_gtpu",
            Self::TooManyGtpuExtensions => "too_many_gtpu_extensions",
            Self::BadGtpuExtension => "bad_gtpu_extension",
            Self::GtpuNotIp => "gtpu_not_ip",
        }
    }

    /// Whether it counts packets that could not be read.
    pub const fn is_parse_fault(self) -> bool {
        self as u32 >= Self::TruncatedLink as u32
    }
}

/// What is counted for each rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum RuleCounter {
    /// Packets that matched in the kernel, retransmissions left out.
    Matched,
    /// Matches held back by the rule's `every` window.
    Suppressed,
    /// Matches whose record did not fit the ring buffer: lost.
    RingFull,
}

/// How many counters each rule has.
pub const RULE_COUNTERS: usize = RuleCounter::ALL.len();

impl RuleCounter {
    /// Every counter of a rule, in the order of its number.
    pub const ALL: [Self; 3] = [Self::Matched, Self::Suppressed, Self::RingFull];

    /// Its name in metrics and in `detector status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Suppressed => "suppressed",
            Self::RingFull => "ring_full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_stands_at_its_own_number() {
        for (number, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, number, "{}", counter.name());
        }
        for (number, counter) in RuleCounter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, number, "{}", counter.name());
        }
    }

    #[test]
    fn names_are_unique() {
        for (i, a) in Counter::ALL.iter().enumerate() {
            for b in &Counter::ALL[i + 1..] {
                assert_ne!(a.name(), b.name());
            }
        }
    }
}
