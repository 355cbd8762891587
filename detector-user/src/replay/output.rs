//! What `detector replay --rules` prints: an event a line, and what became of the packets.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use chrono::SecondsFormat;
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
    /// Columns for people: time, UE, rule, the event's id and type.
    Table,
}

/// Writes events, one a line.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    format: Format,
    /// Columns of [`Format::Table`] are as wide as the widest value so far: what comes is not known.
    ue: usize,
    rule: usize,
}

impl Lines {
    /// Lines in this format.
    pub fn new(format: Format) -> Self {
        Self { format, ue: "255.255.255.255".len(), rule: 20 }
    }

    /// Writes the head of the columns, if there are any.
    ///
    /// # Errors
    /// What writing gives.
    pub fn head(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.format {
            Format::Json => Ok(()),
            Format::Table => self.row(out, ["time", "ue", "rule", "id", "type"]),
        }
    }

    /// Writes one event.
    ///
    /// # Errors
    /// What writing gives.
    pub fn event(
        &mut self,
        out: &mut dyn Write,
        event: &Event,
        detection: &Detection,
    ) -> io::Result<()> {
        match self.format {
            // By way of a value, whose keys are sorted: the event's extensions are in a random order.
            Format::Json => writeln!(out, "{}", serde_json::to_value(event)?),
            Format::Table => {
                let time =
                    event.time().map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true));
                let (time, ue) = (time.unwrap_or_default(), detection.flow.ue_ip.to_string());
                let rule = &detection.rule.name;
                (self.ue, self.rule) = (self.ue.max(ue.len()), self.rule.max(rule.len()));
                self.row(out, [&time, &ue, rule, event.id(), event.ty()])
            }
        }
    }

    fn row(&self, out: &mut dyn Write, [time, ue, rule, id, kind]: [&str; 5]) -> io::Result<()> {
        let Self { ue: ue_width, rule: rule_width, .. } = *self;
        writeln!(out, "{time:<27}  {ue:<ue_width$}  {rule:<rule_width$}  {id:<36}  {kind}")
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
