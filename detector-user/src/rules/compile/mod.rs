//! Checked rules -> one generation of tables. Pure: no kernel, no clock.
//!
//! Three dimensions have prefixes or ranges, which are folded here so that the packet path only
//! makes exact look-ups: the application's address and port, the UE's address, the request path. Each
//! has a file, and so have the names that DNS messages are shown for.

mod endpoint;
mod gate;
mod name;
mod path;
mod prefix;
mod row;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use detector_common::{
    event::MAX_CAPTURE,
    inspect::want,
    rule::{
        ApplicationEntry, Generation, MAX_APPLICATIONS, MAX_ROWS, MAX_RULES, Row, RuleEntry, Tag,
    },
};
use ipnet::IpNet;

pub use self::prefix::address;
use self::{
    gate::Gate,
    prefix::{Prefix, is_v4},
    row::words_used,
};
use super::{
    inspection::inspection,
    model::{Rule, RuleSet, Signature},
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
    let mut applications = builder.applications();
    builder.endpoints(&mut applications);
    builder.ues(ue_pools);
    builder.paths();
    builder.names(&mut applications);
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

/// Whether requests that no rule's method and path allow stay out of the ring, though user space follows
/// the streams of the application for these, its rules.
pub fn keeps_requests_out<'a>(rules: impl Iterator<Item = &'a Rule> + Clone) -> bool {
    let gates: Vec<_> = rules.clone().map(Gate::of).collect();
    let inspect = inspection(rules.clone()).inspect;
    gate::closed(inspect, rules.zip(gates.iter().map(Option::as_ref)))
}

fn rule_entry(rule: &Rule) -> RuleEntry {
    RuleEntry {
        id: stable_id(&rule.name),
        capture: rule.capture.min(MAX_CAPTURE as u16),
        important: u16::from(rule.priority > 0),
        window_ns: rule.every.map_or(0, |every| every.as_nanos() as u64),
    }
}

struct Builder<'a> {
    set: &'a RuleSet,
    /// What the kernel decides for each rule; `None` for rules that user space decides.
    signatures: Vec<Option<Signature>>,
    /// Which requests may match the others, of those on requests.
    gates: Vec<Option<Gate>>,
    rows: Vec<Row>,
    row_numbers: HashMap<Row, u32>,
    entries: Vec<Entry>,
    ports: Vec<[u16; 4]>,
    names: Vec<u64>,
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
            gates: set.rules.iter().map(|rule| Gate::of(rule)).collect(),
            rows: Vec::new(),
            row_numbers: HashMap::new(),
            entries: Vec::new(),
            ports: image.ports,
            names: image.names,
            application_prefixes: BTreeSet::new(),
            ue_prefixes: BTreeSet::new(),
            path_lengths: 0,
        }
    }

    fn applications(&mut self) -> Vec<ApplicationEntry> {
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
            let mut entry = ApplicationEntry {
                id: stable_id(&application.name),
                row: self.row_number(row),
                tracks_udp: u16::from(tracks_udp),
                first_word: used.clone().next().unwrap_or(1),
                last_word: used.last().unwrap_or(0),
                request_capture: requests.map(|rule| u32::from(rule.capture)).max().unwrap_or(0),
                ..inspection(set.rules.iter().map(Arc::as_ref).filter(|rule| of_it(rule)))
            };
            let rules =
                set.rules.iter().map(Arc::as_ref).zip(self.gates.iter().map(Option::as_ref));
            if gate::closed(entry.inspect, rules.filter(|(rule, _)| of_it(rule))) {
                entry.inspect |= want::HTTP_GATED;
            }
            entries.push(entry);
        }
        entries
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
            names: self.names,
            rows: self.rows,
            applications,
            rules,
        })
    }
}

#[cfg(test)]
mod tests;
