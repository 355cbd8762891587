//! What `detector replay --rules` prints: an event a line, and what became of the packets.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use cloudevents::{AttributesReader, Event};
use comfy_table::{CellAlignment, Table, presets};
use detector_common::counter::RuleCounter;

use super::Counts;
use crate::detection::Detection;

/// How events are written to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One CloudEvent a line, in its JSON format.
    #[default]
    Json,
    /// Columns for people: time, UE, rule, what was seen, id.
    Table,
}

/// Writes one event.
///
/// # Errors
/// What writing gives.
pub fn write_event(
    out: &mut dyn Write,
    format: Format,
    event: &Event,
    detection: &Detection,
) -> io::Result<()> {
    match format {
        // By way of a value, whose keys are sorted: the event's extensions are in a random order.
        Format::Json => writeln!(out, "{}", serde_json::to_value(event)?),
        Format::Table => {
            let time =
                event.time().map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
            writeln!(
                out,
                "{:<27}  {:<15}  {:<20}  {:<36}  {}",
                time.unwrap_or_default(),
                detection.flow.ue_ip.to_string(),
                detection.rule.name,
                event.id(),
                event.ty(),
            )
        }
    }
}

/// The head of the columns of [`Format::Table`].
///
/// # Errors
/// What writing gives.
pub fn write_head(out: &mut dyn Write, format: Format) -> io::Result<()> {
    match format {
        Format::Json => Ok(()),
        Format::Table => {
            writeln!(out, "{:<27}  {:<15}  {:<20}  {:<36}  type", "time", "ue", "rule", "id")
        }
    }
}

/// What was counted, as text that can be pasted into an issue: counters that stayed 0 are left
/// out, rules never.
pub fn summary(counts: &Counts) -> String {
    let mut packets = table(["packets", "count"]);
    for (counter, count) in counts.packets.iter().filter(|(_, count)| *count != 0) {
        packets.add_row([counter.name().to_owned(), count.to_string()]);
    }
    for (error, count) in &counts.pipeline.undecodable {
        packets.add_row([format!("records undecodable: {error}"), count.to_string()]);
    }
    let Counts { pipeline, .. } = counts;
    let forgotten = [
        ("flows forgotten for want of room", pipeline.flows_forgotten),
        ("hellos and requests forgotten for want of room", pipeline.deep.forgotten_flows),
        ("rates forgotten for want of room", pipeline.deep.forgotten_rates),
        ("`every` windows forgotten for want of room", pipeline.deep.forgotten_windows),
    ];
    for (what, count) in forgotten.into_iter().filter(|(_, count)| *count != 0) {
        packets.add_row([what.to_owned(), count.to_string()]);
    }
    let mut rules =
        table(["rule", "matched", "outweighed", "below rate", "suppressed", "refused", "detected"]);
    for (name, kernel) in &counts.rules {
        let refused = counts.pipeline.refused.iter().filter(|((rule, _), _)| rule == name);
        let refused: u64 = refused.map(|(_, count)| count).sum();
        let of = |wanted| {
            let found = kernel.iter().find(|(counter, _)| *counter == wanted);
            found.map_or(0, |(_, count)| *count)
        };
        // Of rules that user space decides, the packet path knows nothing.
        let deep = |of: &HashMap<String, u64>| of.get(name).copied().unwrap_or(0);
        let detected = counts.pipeline.detected.get(name).copied().unwrap_or(0);
        rules.add_row([
            name.clone(),
            (of(RuleCounter::Matched) + deep(&pipeline.deep.matched)).to_string(),
            deep(&pipeline.deep.outweighed).to_string(),
            deep(&pipeline.deep.below_rate).to_string(),
            (of(RuleCounter::Suppressed) + deep(&pipeline.deep.suppressed)).to_string(),
            refused.to_string(),
            detected.to_string(),
        ]);
    }
    format!("{packets}\n\n{rules}")
}

fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
