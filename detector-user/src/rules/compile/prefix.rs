//! Address prefixes: UE pools, the users of rules, where applications are served.

use std::{collections::BTreeSet, net::IpAddr};

use detector_common::{
    packet::Address,
    rule::{IN_UE_POOL, Tag},
};
use ipnet::IpNet;

use super::Builder;
use crate::rules::table::Entry;

/// An IPv4-mapped prefix: address and length, 0 to 128.
pub(super) type Prefix = (u128, u8);

pub(super) fn mapped(net: IpNet) -> Prefix {
    match net {
        IpNet::V4(net) => (net.network().to_ipv6_mapped().into(), net.prefix_len() + 96),
        IpNet::V6(net) => (net.network().into(), net.prefix_len()),
    }
}

/// Whether every address of `inner` is one of `outer`. An IPv6 prefix as short as `::/0` holds no
/// IPv4 address, though the mapped form lies within it: on the wire they are different families.
pub(super) fn contains(outer: Prefix, inner: Prefix) -> bool {
    is_v4(outer) == is_v4(inner) && covers(outer, inner)
}

fn covers(outer: Prefix, inner: Prefix) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(outer.1)).unwrap_or(0);
    outer.1 <= inner.1 && inner.0 & mask == outer.0 & mask
}

pub(super) fn is_v4(prefix: Prefix) -> bool {
    covers((0xffff_0000_0000, 96), prefix)
}

pub(super) fn key_of(prefix: Prefix) -> [u64; 2] {
    Address::v6(prefix.0.to_be_bytes()).0
}

/// The address as the packet path sees it.
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => Address::v4(ip.octets()),
        IpAddr::V6(ip) => Address::v6(ip.octets()),
    }
}

impl Builder<'_> {
    /// UE prefixes of rules and UE pools -> rows. A longer prefix also has the rules of those
    /// around it.
    pub(super) fn ues(&mut self, pools: &[IpNet]) {
        let pools: Vec<Prefix> = pools.iter().map(|pool| mapped(*pool)).collect();
        let mut prefixes: BTreeSet<Prefix> = pools.iter().copied().collect();
        prefixes
            .extend(self.set.rules.iter().flat_map(|rule| rule.ue.iter().map(|ue| mapped(*ue))));
        for prefix in prefixes.iter().copied() {
            let row = self.select(|rule| {
                rule.ue.is_empty() || rule.ue.iter().any(|ue| contains(mapped(*ue), prefix))
            });
            let in_pool = pools.iter().any(|pool| contains(*pool, prefix));
            let value = self.row_number(row) | if in_pool { IN_UE_POOL } else { 0 };
            self.entries.push(Entry { key: key_of(prefix), tag: Tag::ue_prefix(prefix.1), value });
        }
        self.ue_prefixes = prefixes;
    }
}
