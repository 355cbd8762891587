//! Probing the rule tables: address -> application, UE -> row, path -> row.

use crate::{
    http::PATH_PREFIX_LENGTHS,
    packet::{Address, PacketBytes, Protocol},
    rule::{
        ANY_PORT, ApplicationEntry, BUCKET_ENTRIES, DIRECT, DIRECT_UDP, Generation,
        MAX_PREFIX_LENGTHS, PrefixMasks, Tables, Tag, row,
    },
};

/// Hash of a key of the read-only table: two rounds of multiply and xor-shift, as cheap as a
/// probe can be. The seed is chosen by user space so that no bucket overflows.
///
/// A product's high half depends on every bit below it, its low half on few: so each word is folded
/// before it is multiplied, and the high half is the hash.
#[inline(always)]
pub const fn hash(seed: u64, key: [u64; 2], tag: Tag) -> u32 {
    let mut h = (key[0] ^ (key[0] >> 32) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^= (h >> 32) ^ key[1] ^ ((tag.0 as u64) << 40);
    h = (h ^ (h >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (h >> 32) as u32
}

/// The value of a key.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, head: &Generation, key: [u64; 2], tag: Tag) -> Option<u32> {
    let index = hash(head.seed, key, tag) & head.bucket_mask;
    let bucket = tables.bucket(index)?;
    for entry in 0..BUCKET_ENTRIES {
        if bucket.tags[entry] == 0 {
            return None;
        }
        if bucket.tags[entry] == tag.0
            && bucket.keys[entry][0] == key[0]
            && bucket.keys[entry][1] == key[1]
        {
            return Some(bucket.values[entry]);
        }
    }
    None
}

/// The value of the longest prefix that holds `address`.
#[inline(always)]
fn find_prefix<T: Tables>(
    tables: &T,
    head: &Generation,
    masks: &PrefixMasks,
    address: Address,
) -> Option<u32> {
    for index in 0..MAX_PREFIX_LENGTHS {
        if index as u32 >= masks.count {
            return None;
        }
        let length = &masks.lengths[index];
        let key = [address.0[0] & length.mask.0[0], address.0[1] & length.mask.0[1]];
        if let Some(value) = find(tables, head, key, Tag(length.tag)) {
            return Some(value);
        }
    }
    None
}

/// The application served at an address and port.
#[inline(always)]
pub fn application<'t, T: Tables>(
    tables: &'t T,
    head: &Generation,
    address: Address,
    protocol: Protocol,
    port: u16,
) -> Option<&'t ApplicationEntry> {
    let masks = if address.is_v4() { &head.application_v4 } else { &head.application_v6 };
    let found = find_prefix(tables, head, masks, address)?;
    if found & DIRECT == 0 {
        return tables.application(by_class(tables, head, found, protocol, port)?);
    }
    let application = tables.application(found & !(DIRECT | DIRECT_UDP))?;
    let udp = matches!(protocol, Protocol::Udp);
    let [first, last] = application.ports;
    ((found & DIRECT_UDP != 0) == udp && first <= port && port <= last).then_some(application)
}

/// The application that a class of addresses has at a port.
#[inline(always)]
fn by_class<T: Tables>(
    tables: &T,
    head: &Generation,
    class: u32,
    protocol: Protocol,
    port: u16,
) -> Option<u32> {
    let class = u64::from(class);
    let half = match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1 << 14,
    };
    let ports = tables.ports(half | u32::from(port >> 2))?;
    let port_class = u64::from(ports[usize::from(port & 3)]);
    if port_class != 0
        && let Some(found) = find(tables, head, [class, port_class], Tag::ENDPOINT)
    {
        return Some(found);
    }
    find(tables, head, [class, ANY_PORT | protocol as u64], Tag::ENDPOINT)
}

/// A UE's place in the rules: the number of its row, with [`crate::rule::IN_UE_POOL`].
#[inline(always)]
pub fn ue<T: Tables>(tables: &T, head: &Generation, address: Address) -> u32 {
    let masks = if address.is_v4() { &head.ue_v4 } else { &head.ue_v6 };
    find_prefix(tables, head, masks, address).unwrap_or(row::ANY_UE)
}

/// The row of the rules whose path the request target `at` bytes into the packet may have.
#[inline(always)]
pub fn path<T: Tables, P: PacketBytes + ?Sized>(
    tables: &T,
    head: &Generation,
    packet: &P,
    at: usize,
) -> u32 {
    let Some((words, length)) = load_target(packet, at) else { return row::ALL };
    let [a, b, _, _] = words;
    let [first, second, third, fourth, ..] = a.to_ne_bytes();
    // A target in absolute or authority form (RFC 9112 section 3.2): user space takes it apart.
    if first != b'/' {
        return row::ALL;
    }
    if length >= 32
        && head.path_lengths & (1 << 0) != 0
        && let Some(found) = find_path(tables, head, path_key(words), 0)
    {
        return found;
    }
    if length >= 16
        && head.path_lengths & (1 << 1) != 0
        && let Some(found) = find_path(tables, head, path_key([a, b, 0, 0]), 1)
    {
        return found;
    }
    if length >= 8
        && head.path_lengths & (1 << 2) != 0
        && let Some(found) = find_path(tables, head, path_key([a, 0, 0, 0]), 2)
    {
        return found;
    }
    let start = u64::from(u32::from_ne_bytes([first, second, third, fourth]));
    find_path(tables, head, path_key([start, 0, 0, 0]), 3).unwrap_or(row::ANY_PATH)
}

/// The longest start of the request target that the packet holds, of the lengths in the table, and
/// that length. Nearly always the longest, in one go.
#[inline(always)]
fn load_target<P: PacketBytes + ?Sized>(packet: &P, at: usize) -> Option<([u64; 4], u32)> {
    if let Some(words) = packet.load_payload::<[u64; 4]>(at) {
        return Some((words, 32));
    }
    if let Some([a, b]) = packet.load_payload::<[u64; 2]>(at) {
        return Some(([a, b, 0, 0], 16));
    }
    if let Some(a) = packet.load_payload::<u64>(at) {
        return Some(([a, 0, 0, 0], 8));
    }
    let start = packet.load_payload::<[u8; 4]>(at)?;
    let [a, b, c, d] = start;
    Some(([u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]), 0, 0, 0], 4))
}

#[inline(always)]
fn find_path<T: Tables>(
    tables: &T,
    head: &Generation,
    key: [u64; 2],
    length: usize,
) -> Option<u32> {
    find(tables, head, key, Tag::path_prefix(PATH_PREFIX_LENGTHS[length]))
}

/// Key of up to 32 path bytes: as they are up to 16, folded above. Two prefixes that fold to the
/// same key cost a record that user space refuses, nothing else.
#[inline(always)]
pub const fn path_key(words: [u64; 4]) -> [u64; 2] {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    [words[0] ^ words[2].wrapping_mul(ODD), words[1] ^ words[3].wrapping_mul(ODD)]
}
