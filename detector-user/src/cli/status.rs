//! `detector status`: what a running agent says of itself.

use std::{
    collections::BTreeSet, io::Write, net::SocketAddr, path::PathBuf, process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::admin::socket::DEFAULT_PATH;

/// Show what a running agent watches, has detected, and whether it is ready.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Asks the agent's control socket, as root or the agent's user; with --admin its admin port.

Exit codes: 0 the agent is ready; 1 it is not, or no agent answers; 2 wrong usage.")]
pub struct StatusArgs {
    /// The config's `spec.admin.socket`.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    socket: PathBuf,
    /// The config's `spec.admin.listen`, e.g. 127.0.0.1:9901, to be asked instead.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "socket")]
    admin: Option<SocketAddr>,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Runs the command.
///
/// # Errors
/// When no agent answers.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let server = match args.admin {
        Some(address) => Server::Port(address),
        None => Server::Socket(args.socket),
    };
    let status = server.get("/status").await?;
    let readiness = server.get("/readyz").await?;
    let ready = readiness["ready"] == true;
    let text = match args.output {
        Output::Json => {
            let mut all = status;
            all["readiness"] = readiness;
            serde_json::to_string_pretty(&all)?
        }
        Output::Table => text(&status, &readiness),
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What to ask.
enum Server {
    Socket(PathBuf),
    Port(SocketAddr),
}

impl Server {
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let body = self.ask(path).await.with_context(|| match self {
            Self::Socket(socket) => format!(
                "no agent answers at {}; does `detector run` run here, with this \
                 spec.admin.socket, and are you root?",
                socket.display()
            ),
            Self::Port(admin) => format!(
                "no agent answers at {admin}; does `detector run` run here, with this \
                 spec.admin.listen?"
            ),
        })?;
        serde_json::from_str(&body).context("what answers is no agent")
    }

    async fn ask(&self, path: &str) -> reqwest::Result<String> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5));
        let (client, host) = match self {
            Self::Socket(socket) => (client.unix_socket(&**socket), "localhost".to_owned()),
            Self::Port(address) => (client, address.to_string()),
        };
        client.build()?.get(format!("http://{host}{path}")).send().await?.text().await
    }
}

fn text(status: &Value, readiness: &Value) -> String {
    let mut parts = vec![ready_line(readiness), balance_line(&status["ledger"])];
    parts.push(devices(&status["devices"]));
    parts.push(rules(&status["rules"]));
    parts.extend(rest(status));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn ready_line(readiness: &Value) -> String {
    if readiness["ready"] == true {
        return "ready".to_owned();
    }
    let conditions = readiness["conditions"].as_object().into_iter().flatten();
    let unmet = conditions.filter(|(_, condition)| condition["met"] != true);
    let unmet: Vec<_> =
        unmet.map(|(name, it)| format!("{name}: {}", word(&it["reason"]))).collect();
    format!("not ready: {}", unmet.join("; "))
}

/// Says which rules' books do not balance, if any.
fn balance_line(ledger: &Value) -> String {
    let books = ledger.as_object().into_iter().flatten();
    let wrong = books.map(|(rule, books)| (rule, &books["imbalance"]));
    let wrong: Vec<_> = wrong
        .filter(|(_, imbalance)| imbalance.as_i64().is_some_and(|it| it != 0))
        .map(|(rule, imbalance)| format!("{rule} by {imbalance}"))
        .collect();
    match wrong.is_empty() {
        true => String::new(),
        false => format!("the books do not balance (please report this): {}", wrong.join(", ")),
    }
}

fn devices(devices: &Value) -> String {
    let mut table = new_table(["device", "traffic", "state", "hook", "since", "why not"]);
    for device in devices.as_array().into_iter().flatten() {
        let name = if device["device"].is_null() { &device["pattern"] } else { &device["device"] };
        let reasons = device["reasons"].as_array().into_iter().flatten();
        let reasons = reasons.chain(device.get("reason")).map(|it| word(&it["what"]));
        let why: Vec<_> = reasons.collect();
        let cell = |field: &str| word(&device[field]);
        let row = [word(name), cell("traffic"), cell("state"), cell("hook"), cell("since")];
        table.add_row(row.into_iter().chain([why.join("\n")]));
    }
    table.to_string()
}

fn rules(rules: &Value) -> String {
    let Some(rules) = rules.as_object().filter(|rules| !rules.is_empty()) else {
        return "no rules".to_owned();
    };
    let fields = rules.values().filter_map(Value::as_object).flat_map(|rule| rule.keys());
    let fields: BTreeSet<_> = fields.map(String::as_str).collect();
    let mut table = new_table(["rule"].into_iter().chain(fields.iter().copied()));
    for (name, rule) in rules {
        let cells = fields.iter().map(|field| word(&rule[field]));
        table.add_row([name.clone()].into_iter().chain(cells));
    }
    table.to_string()
}

/// Everything else that is one value, and what of packets is not 0.
fn rest(status: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in status.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("devices" | "rules", _) => {}
            (_, Value::Object(values)) => {
                let seen = values.iter().filter(|(_, value)| **value != json!(0));
                let seen: Vec<_> = seen.map(|(key, it)| format!("{key} {}", word(it))).collect();
                lines.push(format!("{name}: {}", seen.join(", ")));
            }
            (_, value) => lines.push(format!("{name}: {}", word(value))),
        }
    }
    lines
}

fn new_table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

/// As a person would write it.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let pairs: Vec<_> = map.iter().map(|(key, it)| format!("{key} {}", word(it))).collect();
            pairs.join(", ")
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_is_watched_what_is_not_and_why() {
        let status = json!({
            "devices": [
                {"device": "n6", "pattern": "n6", "traffic": "received", "state": "attached",
                 "hook": "xdp-native", "since": "2026-01-01T00:00:00.000Z"},
                {"device": null, "pattern": "n9", "traffic": null, "state": "missing",
                 "reason": {"what": "no such device"}},
            ],
            "rules": {"buy": {"matched": 3, "refused": {"path": 1}}},
            "packets": {"packets": 10, "truncated": 0},
            "ledger": {"buy": {"imbalance": 3}, "came": {"imbalance": 0}},
            "sessions_open": 2,
        });
        let readiness = json!({"ready": false, "conditions": {
            "attached": {"met": false, "reason": "n9: no such device"}, "rules": {"met": true}}});
        let text = text(&status, &readiness);
        assert!(text.starts_with("not ready: attached: n9: no such device\n"), "{text}");
        for wanted in [
            "not balance (please report this): buy by 3\n",
            "xdp-native",
            "no such device",
            "path 1",
            "packets: packets 10\n",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(text.ends_with("sessions_open: 2") && !text.contains("truncated"), "{text}");
    }
}
