//! What detector and tshark say of a capture, in one form.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::agent;

/// Between several values of one field.
const BETWEEN: char = '\u{1f}';
const PUBLISH: &str = "3";

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fact {
    frame: u64,
    pub(crate) kind: String,
    /// The name; of a request method, host and target.
    name: String,
}

/// What `detector replay --facts` says, by frame.
pub(crate) fn detector(capture: PathBuf) -> Result<Vec<Fact>> {
    let mut command = agent::command(None)?;
    command.arg("replay").arg("--facts").arg(capture);
    let lines = lines(command)?;
    let facts = lines.iter().map(|line| {
        let line: Value = serde_json::from_str(line)?;
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let name = match text("kind").as_str() {
            "http" => format!("{} {} {}", text("method"), text("host"), text("uri")),
            _ => text("name"),
        };
        let frame = line["frame"].as_u64().context("no frame")?;
        Ok(Fact { frame, kind: text("kind"), name })
    });
    sorted(facts.collect::<Result<_>>()?)
}

/// What tshark says, by frame.
pub(crate) fn tshark(capture: PathBuf) -> Result<Vec<Fact>> {
    const FIELDS: [&str; 9] = [
        "frame.number",
        "dns.flags.response",
        "dns.qry.name",
        "tls.handshake.extensions_server_name",
        "http.request.method",
        "http.host",
        "http.request.uri",
        "mqtt.msgtype",
        "mqtt.topic",
    ];
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-E", "separator=/t", "-E"]);
    command.arg(format!("aggregator={BETWEEN}")).arg("-r").arg(capture);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let mut facts = Vec::new();
    for line in lines(command)? {
        let mut fields: Vec<_> = line.split('\t').collect();
        fields.resize(FIELDS.len(), "");
        facts.extend(facts_of(&fields)?);
    }
    sorted(facts)
}

fn facts_of(fields: &[&str]) -> Result<Vec<Fact>> {
    let &[frame, response, dns, tls, method, host, uri, kinds, topics] = fields else {
        anyhow::bail!("{} fields", fields.len());
    };
    let frame = frame.parse()?;
    let mut facts = Vec::new();
    let mut add = |kind: &str, name: String| facts.push(Fact { frame, kind: kind.into(), name });
    if response.split(BETWEEN).all(|response| response == "0" || response == "False") {
        values(dns).for_each(|name| add("dns", name.into()));
    }
    values(tls).for_each(|name| add("tls", name.into()));
    if !method.is_empty() {
        add("http", format!("{method} {host} {uri}"));
    }
    // SUBSCRIBE has topics too; here it is never in a frame with a PUBLISH.
    if values(kinds).any(|kind| kind == PUBLISH) {
        values(topics).for_each(|topic| add("mqtt", topic.into()));
    }
    Ok(facts)
}

fn values(field: &str) -> impl Iterator<Item = &str> {
    field.split(BETWEEN).filter(|value| !value.is_empty())
}

fn lines(mut command: Command) -> Result<Vec<String>> {
    let output = command.output()?;
    let name = command.get_program().to_owned();
    ensure!(output.status.success(), "{name:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn sorted(mut facts: Vec<Fact>) -> Result<Vec<Fact>> {
    facts.sort();
    Ok(facts)
}
