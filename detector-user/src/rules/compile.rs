//! Checked rules -> one generation of tables. Pure: no kernel, no clock.
//!
//! Three dimensions have prefixes or ranges, which are folded here so that the packet path only
//! makes exact look-ups: the application's address and port, the UE's address, the request path.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use detector_common::{
    event::MAX_CAPTURE,
    http::{HttpMethod, PATH_PREFIX_LENGTHS},
    lookup::path_key,
    packet::{Address, Direction, Protocol},
    rule::{
        ANY_PORT, ApplicationEntry, Generation, IN_UE_POOL, MAX_APPLICATIONS, MAX_ROWS, MAX_RULES,
        Row, RuleEntry, Tag, row,
    },
};
use ipnet::IpNet;

use super::{
    inspection::inspection,
    model::{Application, Endpoint, PathMatch, Rule, RuleSet, Signature},
    table::{Entry, TableImage, build_hash_table, prefix_masks},
};

/// Rules that cannot be put into the tables.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// Too many of something.
    #[error("{count} {what}, but a generation holds at most {limit}: split the rules over sites")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// Too many distinct prefix lengths in one place.
    #[error(
        "{what} use more than 8 different prefix lengths per address family; \
         every length costs each packet a look-up: write some prefixes with a common length"
    )]
    PrefixLengths {
        /// Where.
        what: &'static str,
    },
    /// Two names with the same stable id.
    #[error("the names \"{0}\" and \"{1}\" have the same 32-bit id; rename one of them")]
    SameId(String, String),
    /// The hash table is full.
    #[error("{entries} addresses, endpoints and paths do not fit the hash table: use fewer")]
    HashTableFull {
        /// How many there are.
        entries: usize,
    },
}

/// The stable id of a name: FNV-1a. The same over reloads and restarts, never 0.
pub fn stable_id(name: &str) -> u32 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.max(1)
}

/// Compiles rules for the packet path. Rule `n` of the set has number `n` in the tables and in
/// records of this generation.
///
/// # Errors
/// When the rules exceed what the tables hold.
pub fn compile(
    rules: &RuleSet,
    ue_pools: &[IpNet],
    generation: u32,
) -> Result<TableImage, CompileError> {
    check_limits(rules)?;
    let mut builder = Builder::new(rules);
    builder.fixed_rows();
    let applications = builder.applications()?;
    builder.endpoints();
    builder.ues(ue_pools);
    builder.paths();
    let rule_entries = rules.rules.iter().map(|rule| rule_entry(rule)).collect();
    builder.finish(ue_pools, generation, applications, rule_entries)
}

fn check_limits(rules: &RuleSet) -> Result<(), CompileError> {
    let limits = [
        ("rules", rules.rules.len(), MAX_RULES),
        ("applications", rules.applications.len(), MAX_APPLICATIONS),
    ];
    for (what, count, limit) in limits {
        if count > limit {
            return Err(CompileError::TooMany { what, count, limit });
        }
    }
    unique_ids(rules.rules.iter().map(|rule| rule.name.as_str()))?;
    unique_ids(rules.applications.iter().map(|application| application.name.as_str()))
}

fn unique_ids<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), CompileError> {
    let mut seen = HashMap::new();
    for name in names {
        if let Some(other) = seen.insert(stable_id(name), name) {
            return Err(CompileError::SameId(other.to_owned(), name.to_owned()));
        }
    }
    Ok(())
}

fn rule_entry(rule: &Rule) -> RuleEntry {
    RuleEntry {
        id: stable_id(&rule.name),
        capture: rule.capture.min(MAX_CAPTURE as u16),
        important: u16::from(rule.priority > 0),
        window_ns: rule.every.map_or(0, |every| every.as_nanos() as u64),
    }
}

/// An IPv4-mapped prefix: address and length, 0 to 128.
type Prefix = (u128, u8);

fn mapped(net: IpNet) -> Prefix {
    match net {
        IpNet::V4(net) => (net.network().to_ipv6_mapped().into(), net.prefix_len() + 96),
        IpNet::V6(net) => (net.network().into(), net.prefix_len()),
    }
}

/// Whether every address of `inner` is one of `outer`. An IPv6 prefix as short as `::/0` holds no
/// IPv4 address, though the mapped form lies within it: on the wire they are different families.
fn contains(outer: Prefix, inner: Prefix) -> bool {
    is_v4(outer) == is_v4(inner) && covers(outer, inner)
}

fn covers(outer: Prefix, inner: Prefix) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(outer.1)).unwrap_or(0);
    outer.1 <= inner.1 && inner.0 & mask == outer.0 & mask
}

fn is_v4(prefix: Prefix) -> bool {
    covers((0xffff_0000_0000, 96), prefix)
}

/// The address as the packet path sees it.
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => Address::v4(ip.octets()),
        IpAddr::V6(ip) => Address::v6(ip.octets()),
    }
}

struct Builder<'a> {
    set: &'a RuleSet,
    /// What the kernel decides for each rule; `None` for rules that user space decides.
    signatures: Vec<Option<Signature>>,
    rows: Vec<Row>,
    row_numbers: HashMap<Row, u32>,
    entries: Vec<Entry>,
    ports: Vec<[u16; 4]>,
    application_prefixes: BTreeSet<Prefix>,
    ue_prefixes: BTreeSet<Prefix>,
    path_lengths: u32,
}

impl<'a> Builder<'a> {
    fn new(set: &'a RuleSet) -> Self {
        let image = TableImage::empty();
        Self {
            set,
            signatures: set.rules.iter().map(|rule| rule.signature()).collect(),
            rows: Vec::new(),
            row_numbers: HashMap::new(),
            entries: Vec::new(),
            ports: image.ports,
            application_prefixes: BTreeSet::new(),
            ue_prefixes: BTreeSet::new(),
            path_lengths: 0,
        }
    }

    /// The row of the rules for which `wanted` holds.
    fn select(&self, wanted: impl Fn(&Rule) -> bool) -> Row {
        let mut row = Row::NONE;
        for (number, rule) in self.set.rules.iter().enumerate() {
            if wanted(rule) {
                row.0[number / 64] |= 1 << (number % 64);
            }
        }
        row
    }

    /// The row of the rules whose signature is such.
    fn select_signature(&self, wanted: impl Fn(&Signature) -> bool) -> Row {
        let mut row = Row::NONE;
        for (number, signature) in self.signatures.iter().enumerate() {
            if signature.as_ref().is_some_and(&wanted) {
                row.0[number / 64] |= 1 << (number % 64);
            }
        }
        row
    }

    /// The number of a row; equal rows share one.
    fn row_number(&mut self, row: Row) -> u32 {
        let rows = &mut self.rows;
        *self.row_numbers.entry(row).or_insert_with(|| {
            rows.push(row);
            rows.len() as u32 - 1
        })
    }

    fn fixed_rows(&mut self) {
        let mut rows = vec![Row::NONE; row::FIRST_FREE as usize];
        rows[row::ALL as usize] = Row::ALL;
        for direction in [Direction::Uplink, Direction::Downlink] {
            for in_session in [false, true] {
                let mut seen = |kind, wanted: &dyn Fn(&Signature) -> bool| {
                    let number = row::seen(kind, direction, in_session) as usize;
                    rows[number] = self.select_signature(wanted).and(&self.select(|rule| {
                        rule.direction.is_none_or(|wanted| wanted == direction)
                            && (in_session || !rule.needs_session)
                    }));
                };
                seen(row::TCP_OPENED, &|signature| *signature == Signature::TcpOpened);
                seen(row::UDP_FIRST, &|signature| *signature == Signature::UdpFirstPacket);
                for method in HttpMethod::ALL {
                    seen(row::http(method), &|signature| allows_method(signature, method));
                }
            }
        }
        rows[row::ANY_PATH as usize] =
            self.select_signature(|signature| path_allows(signature, b""));
        rows[row::ANY_UE as usize] = self.select(|rule| rule.ue.is_empty());
        self.rows = rows;
    }

    fn applications(&mut self) -> Result<Vec<ApplicationEntry>, CompileError> {
        let set = self.set;
        let mut entries = Vec::with_capacity(set.applications.len());
        for application in &set.applications {
            let of_it = |rule: &Rule| rule.application.name == application.name;
            let row = self.select(of_it);
            let tracks_udp = set.rules.iter().any(|rule| of_it(rule) && rule.sees_udp_first());
            let used = words_used(&row);
            let requests = set.rules.iter().filter(|rule| {
                of_it(rule) && matches!(rule.signature(), Some(Signature::HttpRequest(_)))
            });
            entries.push(ApplicationEntry {
                id: stable_id(&application.name),
                row: self.row_number(row),
                tracks_udp: u32::from(tracks_udp),
                first_word: used.clone().next().unwrap_or(1),
                last_word: used.last().unwrap_or(0),
                request_capture: requests.map(|rule| u32::from(rule.capture)).max().unwrap_or(0),
                ..inspection(set.rules.iter().map(Arc::as_ref).filter(|rule| of_it(rule)))
            });
        }
        Ok(entries)
    }

    /// Endpoints -> address classes, port classes and (class, class) -> application.
    ///
    /// The most specific endpoint wins: longest prefix, then fewest ports, then first in the file.
    fn endpoints(&mut self) {
        let all: Vec<Served> = self
            .set
            .applications
            .iter()
            .enumerate()
            .flat_map(|(number, application)| served(number as u32, application))
            .collect();
        let classes = self.port_classes(&all);
        self.application_prefixes = all.iter().map(|served| served.prefix).collect();
        for (class, prefix) in self.application_prefixes.clone().into_iter().enumerate() {
            let class = class as u32;
            let tag = Tag::application_prefix(prefix.1);
            self.entries.push(Entry { key: key_of(prefix), tag, value: class });
            let mut here: Vec<&Served> =
                all.iter().filter(|served| contains(served.prefix, prefix)).collect();
            here.sort_by_key(|served| (std::cmp::Reverse(served.prefix.1), served.width()));
            self.entries.extend(endpoint_entries(class, &here, &classes));
        }
    }

    /// Cuts each protocol's ports at the borders of all ranges, numbers the pieces from 1, and
    /// writes the number of each port. Ranges over all ports are left to the `ANY_PORT` entry.
    fn port_classes(&mut self, all: &[Served]) -> BTreeMap<(Protocol, u16), u16> {
        let mut classes = BTreeMap::new();
        for (half, protocol) in [(0, Protocol::Tcp), (1 << 16, Protocol::Udp)] {
            let narrow = || all.iter().filter(move |s| s.protocol() == protocol && !s.any_port());
            let borders: BTreeSet<u32> = narrow()
                .flat_map(|s| [u32::from(*s.ports().start()), u32::from(*s.ports().end()) + 1])
                .collect();
            for (start, end) in borders.iter().zip(borders.iter().skip(1)) {
                if !narrow().any(|s| s.ports().contains(&(*start as u16))) {
                    continue;
                }
                let class = classes.len() as u16 + 1;
                classes.insert((protocol, *start as u16), class);
                for port in *start..*end {
                    let cell = half + port as usize;
                    self.ports[cell / 4][cell % 4] = class;
                }
            }
        }
        classes
    }

    /// UE prefixes of rules and UE pools -> rows. A longer prefix also has the rules of those
    /// around it.
    fn ues(&mut self, pools: &[IpNet]) {
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

    /// Path prefixes of the table's lengths -> rows. A longer prefix also has the rules of its
    /// own shorter ones and of those that ask for no path.
    fn paths(&mut self) {
        let mut keys: BTreeSet<Vec<u8>> = BTreeSet::new();
        for signature in self.signatures.iter().flatten() {
            if let Some(prefix) = kernel_path(signature) {
                keys.insert(prefix.to_vec());
            }
        }
        for key in keys {
            let length = PATH_PREFIX_LENGTHS.iter().position(|length| *length == key.len());
            self.path_lengths |= length.map_or(0, |place| 1 << place);
            let row = self.select_signature(|signature| path_allows(signature, &key));
            let value = self.row_number(row);
            self.entries.push(Entry {
                key: path_key(words(&key)),
                tag: Tag::path_prefix(key.len()),
                value,
            });
        }
    }

    fn finish(
        self,
        pools: &[IpNet],
        generation: u32,
        applications: Vec<ApplicationEntry>,
        rules: Vec<RuleEntry>,
    ) -> Result<TableImage, CompileError> {
        if self.rows.len() > MAX_ROWS {
            let count = self.rows.len();
            return Err(CompileError::TooMany { what: "rule rows", count, limit: MAX_ROWS });
        }
        let table = build_hash_table(&self.entries)
            .ok_or(CompileError::HashTableFull { entries: self.entries.len() })?;
        let masks = |prefixes: &BTreeSet<Prefix>, v4: bool, tag: fn(u8) -> Tag, what| {
            let lengths = prefixes.iter().filter(|prefix| is_v4(**prefix) == v4).map(|p| p.1);
            prefix_masks(lengths, tag).ok_or(CompileError::PrefixLengths { what })
        };
        let applications_at = |v4| {
            let what = "application endpoints";
            masks(&self.application_prefixes, v4, Tag::application_prefix, what)
        };
        let ues_at =
            |v4| masks(&self.ue_prefixes, v4, Tag::ue_prefix, "UE pools and UE prefixes of rules");
        Ok(TableImage {
            generation: Generation {
                generation,
                has_ue_pools: u32::from(!pools.is_empty()),
                seed: table.seed,
                bucket_mask: table.buckets.len() as u32 - 1,
                path_lengths: self.path_lengths,
                application_v4: applications_at(true)?,
                application_v6: applications_at(false)?,
                ue_v4: ues_at(true)?,
                ue_v6: ues_at(false)?,
            },
            buckets: table.buckets,
            ports: self.ports,
            rows: self.rows,
            applications,
            rules,
        })
    }
}

/// One endpoint of one application.
struct Served<'a> {
    application: u32,
    prefix: Prefix,
    endpoint: &'a Endpoint,
}

impl Served<'_> {
    fn protocol(&self) -> Protocol {
        self.endpoint.protocol
    }
    fn ports(&self) -> &std::ops::RangeInclusive<u16> {
        &self.endpoint.ports
    }
    fn width(&self) -> u32 {
        u32::from(*self.ports().end()) - u32::from(*self.ports().start())
    }
    fn any_port(&self) -> bool {
        *self.ports().start() <= 1 && *self.ports().end() == u16::MAX
    }
}

fn served(number: u32, application: &Arc<Application>) -> impl Iterator<Item = Served<'_>> {
    application.endpoints.iter().map(move |endpoint| Served {
        application: number,
        prefix: mapped(endpoint.prefix),
        endpoint,
    })
}

/// The entries of one address class: for each port class the most specific endpoint that covers
/// it, and for each protocol the one over all ports. `here` is sorted, most specific first.
fn endpoint_entries(
    class: u32,
    here: &[&Served],
    classes: &BTreeMap<(Protocol, u16), u16>,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for ((protocol, start), port_class) in classes {
        let winner = here
            .iter()
            .find(|served| served.protocol() == *protocol && served.ports().contains(start));
        // Where an endpoint over all ports wins, the ANY_PORT entry below says so already, unless
        // a wider prefix has a narrower range, which must not win.
        if let Some(winner) = winner
            && (!winner.any_port() || here.iter().any(|s| !s.any_port()))
        {
            let key = [u64::from(class), u64::from(*port_class)];
            entries.push(Entry { key, tag: Tag::ENDPOINT, value: winner.application });
        }
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        if let Some(winner) = here.iter().find(|s| s.protocol() == protocol && s.any_port()) {
            let key = [u64::from(class), ANY_PORT | protocol as u64];
            entries.push(Entry { key, tag: Tag::ENDPOINT, value: winner.application });
        }
    }
    entries
}

fn key_of(prefix: Prefix) -> [u64; 2] {
    Address::v6(prefix.0.to_be_bytes()).0
}

/// The part of a rule's path that the kernel looks up, if the path is long enough for one.
fn kernel_path(signature: &Signature) -> Option<&[u8]> {
    let Signature::HttpRequest(http) = signature else { return None };
    let path = match &http.path {
        PathMatch::Any => return None,
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_bytes(),
    };
    let length = PATH_PREFIX_LENGTHS.into_iter().find(|length| *length <= path.len())?;
    Some(&path[..length])
}

/// Whether a request whose path begins with `start` (a table prefix, or nothing) may match.
fn path_allows(signature: &Signature, start: &[u8]) -> bool {
    match signature {
        Signature::HttpRequest(_) => {
            kernel_path(signature).is_none_or(|path| start.starts_with(path))
        }
        Signature::TcpOpened
        | Signature::UdpFirstPacket
        | Signature::SessionStarted
        | Signature::SessionEnded => false,
    }
}

/// Whether a request of this method may match.
fn allows_method(signature: &Signature, method: HttpMethod) -> bool {
    match signature {
        Signature::HttpRequest(http) => http.methods.is_empty() || http.methods.contains(&method),
        Signature::TcpOpened
        | Signature::UdpFirstPacket
        | Signature::SessionStarted
        | Signature::SessionEnded => false,
    }
}

/// The numbers of the words of a row that are not 0.
fn words_used(row: &Row) -> impl Iterator<Item = u32> + Clone {
    let used = row.0.into_iter().zip(0..).filter(|(bits, _)| *bits != 0);
    used.map(|(_, word)| word)
}

/// Up to 32 bytes as the packet path loads them: words of the machine's order, 0 beyond the end.
fn words(bytes: &[u8]) -> [u64; 4] {
    let mut padded = [0u8; 32];
    padded[..bytes.len()].copy_from_slice(bytes);
    std::array::from_fn(|n| u64::from_ne_bytes(std::array::from_fn(|byte| padded[n * 8 + byte])))
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
