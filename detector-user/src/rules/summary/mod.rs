//! A rule set in words: what each application is and what each rule needs.

mod words;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use comfy_table::{ContentArrangement, Table, presets};
use detector_common::packet::Protocol;
use serde::Serialize;

use super::{
    compile::keeps_requests_out,
    field::{direction, protocol},
    model::{Application, Endpoint, Rule, RuleSet, Signature},
    term::MessageTerm,
};

/// An application in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationSummary {
    /// Its name.
    pub name: String,
    /// Where it is served, e.g. `10.45.0.10/32 tcp 80`.
    pub endpoints: Vec<String>,
    /// Idle time that ends a session.
    pub idle: String,
    /// Idle time that ends a session whose connections are closed.
    pub linger: String,
    /// Rules that watch it.
    pub rules: usize,
}

/// A rule in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleSummary {
    /// Its name.
    pub name: String,
    /// The application it watches.
    pub application: String,
    /// What it fires on, e.g. `uplink http POST /buy`.
    pub fires_on: String,
    /// Who decides whether it matches: `kernel` or `user space`.
    pub decided_in: &'static str,
    /// What of the application's traffic goes to user space for it.
    pub sent: String,
    /// Of the rules that match, the highest goes first.
    pub priority: i32,
    /// Whether rules of lower priority do not match when it does.
    pub r#final: bool,
    /// Payload bytes copied for each match.
    pub payload_bytes: u16,
    /// Whether it fires only inside a session.
    pub needs_session: bool,
    /// At most one event per user in this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// The type of its events.
    pub emits: String,
}

impl ApplicationSummary {
    /// Of each application.
    pub fn all(set: &RuleSet) -> Vec<Self> {
        let watches = |application: &Arc<Application>| {
            set.rules.iter().filter(|rule| rule.application.name == application.name).count()
        };
        let of = |application: &Arc<Application>| Self {
            name: application.name.clone(),
            endpoints: application.endpoints.iter().map(endpoint).collect(),
            idle: duration(application.session.idle),
            linger: duration(application.session.linger),
            rules: watches(application),
        };
        set.applications.iter().map(of).collect()
    }
}

impl RuleSummary {
    /// Of each rule.
    pub fn all(set: &RuleSet) -> Vec<Self> {
        let gated = gated(set);
        let is_gated = |rule: &Rule| gated.contains(rule.application.name.as_str());
        set.rules.iter().map(|rule| Self::of(rule, is_gated(rule))).collect()
    }

    fn of(rule: &Rule, gated: bool) -> Self {
        Self {
            name: rule.name.clone(),
            application: rule.application.name.clone(),
            fires_on: fires_on(rule),
            decided_in: if rule.signature().is_some() { "kernel" } else { "user space" },
            sent: sent(rule, gated),
            priority: rule.priority,
            r#final: rule.is_final,
            payload_bytes: rule.capture,
            needs_session: rule.needs_session,
            every: rule.every.map(duration),
            emits: rule.emit.event_type.clone(),
        }
    }

    fn needs(&self) -> String {
        let payload =
            (self.payload_bytes > 0).then(|| format!("{} payload bytes", self.payload_bytes));
        let session = self.needs_session.then(|| "an open session".to_owned());
        let every = self.every.as_ref().map(|every| format!("one per {every} and user"));
        let priority = (self.priority != 0).then(|| format!("priority {}", self.priority));
        let last = self.r#final.then(|| "final".to_owned());
        let needs = [payload, session, every, priority, last];
        let needs: Vec<String> = needs.into_iter().flatten().collect();
        if needs.is_empty() { "nothing".to_owned() } else { needs.join(", ") }
    }
}

/// Tables for people.
pub fn table(set: &RuleSet) -> String {
    let mut applications = new_table(["APPLICATION", "ENDPOINTS", "SESSION ENDS", "RULES"]);
    for a in ApplicationSummary::all(set) {
        let ends = format!("after {} idle, {} once closed", a.idle, a.linger);
        applications.add_row([a.name, a.endpoints.join("\n"), ends, a.rules.to_string()]);
    }
    let mut rules = new_table([
        "RULE",
        "APPLICATION",
        "FIRES ON",
        "NEEDS",
        "DECIDED IN",
        "SENT THERE",
        "EMITS",
    ]);
    for r in RuleSummary::all(set) {
        let needs = r.needs();
        rules.add_row([
            r.name,
            r.application,
            r.fires_on,
            needs,
            r.decided_in.to_owned(),
            r.sent,
            r.emits,
        ]);
    }
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut parts = Vec::new();
    if !set.applications.is_empty() {
        parts.push(applications.trim_fmt());
    }
    if !set.rules.is_empty() {
        parts.push(rules.trim_fmt());
    }
    parts.push(format!(
        "{}, {}: good",
        counted(set.applications.len(), "application"),
        counted(set.rules.len(), "rule")
    ));
    parts.join("\n\n")
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    // The terminal's width, if it is one; no colours and no lines that a pipe would have to skip.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

fn fires_on(rule: &Rule) -> String {
    let mut words: Vec<String> =
        rule.direction.map(|d| direction(d).to_owned()).into_iter().collect();
    words.push(words::terms(&rule.terms));
    if !rule.ue.is_empty() {
        let ue: Vec<String> = rule.ue.iter().map(ToString::to_string).collect();
        words.push(format!("by {}", ue.join(", ")));
    }
    words.join(" ")
}

/// Applications whose requests are kept out of the ring unless a rule's method and path allow them.
fn gated(set: &RuleSet) -> HashSet<&str> {
    let mut rules: HashMap<&str, Vec<&Rule>> = HashMap::new();
    for rule in &set.rules {
        rules.entry(&rule.application.name).or_default().push(rule);
    }
    let gated = rules.into_iter().filter(|(_, of_it)| keeps_requests_out(of_it.iter().copied()));
    gated.map(|(name, _)| name).collect()
}

/// What of the application's traffic goes to user space for this rule; `gated` if its requests are kept
/// out, as far as they can be.
fn sent(rule: &Rule, gated: bool) -> String {
    let tcp = rule.application.endpoints.iter().any(|e| e.protocol == Protocol::Tcp);
    let udp = rule.application.endpoints.iter().any(|e| e.protocol == Protocol::Udp);
    if let Some(signature) = rule.signature() {
        return match signature {
            Signature::SessionStarted | Signature::SessionEnded => "notices of sessions",
            Signature::TcpOpened | Signature::UdpFirstPacket | Signature::HttpRequest(_) => {
                "matches only"
            }
        }
        .to_owned();
    }
    let needs = rule.needs();
    if needs.sums {
        return "nothing: what the kernel counts is looked at".to_owned();
    }
    let datagrams = match &rule.terms.message {
        Some(MessageTerm::Dns(dns)) if dns.names_some() => "UDP messages for these names",
        Some(_) | None => "UDP payloads that look like it",
    };
    [
        (needs.opened, "SYNs"),
        (needs.udp_first, "first packets of UDP flows"),
        (needs.closed || needs.idle.is_some(), "ends of flows"),
        (needs.tcp_flags, "packets with the flags"),
        (needs.payload_start, "payloads that begin so"),
        (
            needs.streams && tcp,
            "the first 16 KiB of TCP flows each way, then what begins a message",
        ),
        (
            needs.streams && tcp && gated,
            "but no GET, HEAD or other request without a body that no rule's method and path allow",
        ),
        (needs.datagrams && udp, datagrams),
    ]
    .into_iter()
    .filter_map(|(needed, what)| needed.then_some(what))
    .collect::<Vec<_>>()
    .join(", ")
}

fn endpoint(endpoint: &Endpoint) -> String {
    let ports = match (*endpoint.ports.start(), *endpoint.ports.end()) {
        (0 | 1, u16::MAX) => "all ports".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    format!("{} {} {ports}", endpoint.prefix, protocol(endpoint.protocol))
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
