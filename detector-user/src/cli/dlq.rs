//! `detector dlq`: what sinks would not take. It works on the files, whether or not the agent runs.

use std::{collections::BTreeSet, io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use cloudevents::AttributesReader;
use comfy_table::{Table, presets};

use crate::{
    config::{Config, DeadLettersConfig, Environment, SinkConfig},
    deliver::{DeadLetters, Failure, HttpSettings, Sink, dead::DeadLetter},
};

/// Something was not done.
const FAILED: u8 = 1;

/// List, show, send again or drop events that a sink would not take
#[derive(Debug, Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
    /// The Config document of the agent
    #[arg(long, value_name = "FILE", global = true, default_value = "/etc/detector/config.yaml")]
    config: PathBuf,
    /// Only of this sink
    #[arg(long, value_name = "NAME", global = true)]
    sink: Option<String>,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// List them: id, time, rule, sink, and why it was not taken
    List {
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show events in full, with the sink's answer
    Show {
        /// Ids of events
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Send events again, once each; those that are taken leave the file
    #[command(
        after_help = "Exit codes: 0 all were taken; 1 some were not, or none has this id; 2 \
                            wrong usage."
    )]
    Retry(Chosen),
    /// Drop events for good
    Drop(Chosen),
}

#[derive(Debug, Args)]
struct Chosen {
    /// Ids of events
    #[arg(required_unless_present = "all", value_name = "ID")]
    ids: Vec<String>,
    /// All there are
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

impl Chosen {
    fn includes(&self, letter: &DeadLetter) -> bool {
        self.all || self.ids.iter().any(|id| id == letter.event.id())
    }
}

/// A sink and its file.
struct Place {
    config: SinkConfig,
    letters: DeadLetters,
}

/// Runs `detector dlq ...`.
///
/// # Errors
/// The config or a file cannot be read.
pub async fn run(args: DlqArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config, &Environment::of_process())?;
    let Some(dead_letters) = &config.delivery.dead_letters else {
        anyhow::bail!(
            "{}: keeps no dead letters; set spec.delivery.spool or spec.delivery.deadLetters",
            args.config.display()
        );
    };
    let timeout = config.delivery.timeout;
    let places = places(config.sinks, dead_letters, args.sink.as_deref())?;
    act(args.command, places, timeout, &mut std::io::stdout().lock()).await
}

async fn act(
    command: DlqCommand,
    places: Vec<Place>,
    timeout: Duration,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    match command {
        DlqCommand::List { json: true } => {
            for letter in all(&places)? {
                writeln!(out, "{}", serde_json::to_string(&letter)?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        DlqCommand::List { json: false } => {
            writeln!(out, "{}", table(&all(&places)?))?;
            Ok(ExitCode::SUCCESS)
        }
        DlqCommand::Show { ids } => {
            let chosen = Chosen { ids, all: false };
            let letters = all(&places)?;
            let wanted: Vec<_> = letters.iter().filter(|it| chosen.includes(it)).collect();
            for letter in &wanted {
                writeln!(out, "{}", serde_json::to_string_pretty(letter)?)?;
            }
            Ok(missing(&chosen, wanted.into_iter()))
        }
        DlqCommand::Retry(chosen) => retry(&places, &chosen, timeout, out).await,
        DlqCommand::Drop(chosen) => drop_chosen(&places, &chosen, out),
    }
}

fn places(
    sinks: Vec<SinkConfig>,
    dead_letters: &DeadLettersConfig,
    only: Option<&str>,
) -> anyhow::Result<Vec<Place>> {
    let names: Vec<String> = sinks.iter().map(|sink| sink.name.clone()).collect();
    let wanted = sinks.into_iter().filter(|sink| only.is_none_or(|name| sink.name == name));
    let places: Vec<Place> = wanted
        .map(|config| {
            let file = dead_letters.file(&config.name);
            Place { letters: DeadLetters::new(file, dead_letters.max_bytes), config }
        })
        .collect();
    ensure!(
        !places.is_empty(),
        "no sink {:?}; expected one of {}",
        only.unwrap_or_default(),
        names.join(", ")
    );
    Ok(places)
}

fn read(place: &Place) -> anyhow::Result<Vec<DeadLetter>> {
    let path = place.letters.path();
    let (letters, damaged) =
        place.letters.read().with_context(|| format!("dead letter file {}", path.display()))?;
    if damaged > 0 {
        eprintln!("warning: {}: {damaged} lines cannot be read", path.display());
    }
    Ok(letters)
}

fn all(places: &[Place]) -> anyhow::Result<Vec<DeadLetter>> {
    let letters: anyhow::Result<Vec<Vec<DeadLetter>>> = places.iter().map(read).collect();
    Ok(letters?.into_iter().flatten().collect())
}

fn table(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["ID", "AT", "RULE", "SINK", "WHY"]);
    for letter in letters {
        let why = format!("{}: {}", letter.outcome, letter.reason);
        table.add_row([letter.event.id(), &letter.at, &letter.rule, &letter.sink, &why]);
    }
    table.to_string()
}

/// Failure, and a message, for ids that nobody has.
fn missing<'a>(chosen: &Chosen, found: impl Iterator<Item = &'a DeadLetter>) -> ExitCode {
    let found: BTreeSet<&str> = found.map(|letter| letter.event.id()).collect();
    let mut code = ExitCode::SUCCESS;
    for id in chosen.ids.iter().filter(|id| !found.contains(id.as_str())) {
        eprintln!("error: no dead letter has the id {id}");
        code = ExitCode::from(FAILED);
    }
    code
}

/// In the order of the file, which is that of each UE's events.
async fn retry(
    places: &[Place],
    chosen: &Chosen,
    timeout: Duration,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let (mut found, mut refused) = (Vec::new(), 0);
    for place in places {
        let http = HttpSettings { timeout, ..HttpSettings::default() };
        let letters: Vec<_> =
            read(place)?.into_iter().filter(|letter| chosen.includes(letter)).collect();
        if letters.is_empty() {
            continue;
        }
        let sink = place.config.sink.open(&place.config.name, &http)?;
        for letter in &letters {
            match attempt(&*sink, letter).await {
                Ok(()) => {
                    place.letters.take_out(|other| other == letter)?;
                    writeln!(out, "{}: taken by {}", letter.event.id(), letter.sink)?;
                }
                Err(failure) => {
                    refused += 1;
                    eprintln!("error: {}: {failure}", letter.event.id());
                }
            }
        }
        found.extend(letters);
    }
    let code = missing(chosen, found.iter());
    Ok(if refused > 0 { ExitCode::from(FAILED) } else { code })
}

/// Once, and once more if the connection was closed under it.
async fn attempt(sink: &dyn Sink, letter: &DeadLetter) -> Result<(), Failure> {
    match sink.attempt(&letter.event).await {
        Err(Failure::Closed(_)) => sink.attempt(&letter.event).await,
        result => result,
    }
}

fn drop_chosen(
    places: &[Place],
    chosen: &Chosen,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let mut gone = Vec::new();
    for place in places {
        place.letters.take_out(|letter| {
            let includes = chosen.includes(letter);
            if includes {
                gone.push(letter.clone());
            }
            includes
        })?;
    }
    writeln!(out, "{} dropped", gone.len())?;
    Ok(missing(chosen, gone.iter()))
}

#[cfg(test)]
mod tests {
    use cloudevents::{EventBuilder, EventBuilderV10};

    use super::*;

    fn letter(id: &str) -> DeadLetter {
        DeadLetter {
            at: "2026-06-19T12:00:00Z".into(),
            sink: "file".into(),
            rule: "press".into(),
            outcome: "rejected".into(),
            reason: "answered 400 Bad Request".into(),
            attempts: 1,
            event: EventBuilderV10::new().id(id).source("/s").ty("t").build().unwrap(),
        }
    }

    /// A config with a file as its sink, and three letters.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yaml");
        let text = "apiVersion: detector.dev/v1alpha1
kind: Config
spec:
  node: n
  devices: [{name: n6}]
  uePools: [{name: phones, cidr: 10.60.0.0/16}]
  rules: [r.yaml]
  sink: {file: {path: events.jsonl}}
  delivery: {deadLetters: {directory: dead}}
";
        std::fs::write(&config, text).unwrap();
        let letters = letters(&config);
        for id in ["1", "2", "3"] {
            letters.add(&letter(id)).unwrap();
        }
        (directory, config)
    }

    fn letters(config: &std::path::Path) -> DeadLetters {
        DeadLetters::new(config.with_file_name("dead").join("file.jsonl"), 1 << 20)
    }

    fn left(config: &std::path::Path) -> Vec<String> {
        let (letters, _) = letters(config).read().unwrap();
        letters.iter().map(|letter| letter.event.id().to_owned()).collect()
    }

    async fn dlq(config: &std::path::Path, command: DlqCommand) -> ExitCode {
        run(DlqArgs { command, config: config.to_owned(), sink: None }).await.unwrap()
    }

    fn chosen(ids: &[&str]) -> Chosen {
        Chosen { ids: ids.iter().map(|id| (*id).to_owned()).collect(), all: ids.is_empty() }
    }

    #[tokio::test]
    async fn a_letter_that_is_taken_leaves_the_file_and_the_others_stay() {
        let (directory, config) = place();
        let code = dlq(&config, DlqCommand::Retry(chosen(&["2"]))).await;
        assert_eq!(code, ExitCode::SUCCESS);
        assert_eq!(left(&config), ["1", "3"]);
        let sent = std::fs::read_to_string(directory.path().join("events.jsonl")).unwrap();
        assert!(sent.contains(r#""id":"2""#) && sent.lines().count() == 1, "{sent}");
        let code = dlq(&config, DlqCommand::Retry(chosen(&["2"]))).await;
        assert_eq!(code, ExitCode::from(FAILED), "nobody has this id any more");
    }

    #[tokio::test]
    async fn letters_are_dropped_by_id_or_all() {
        let (_directory, config) = place();
        dlq(&config, DlqCommand::Drop(chosen(&["1"]))).await;
        assert_eq!(left(&config), ["2", "3"]);
        dlq(&config, DlqCommand::Drop(chosen(&[]))).await;
        assert_eq!(left(&config), [""; 0]);
    }

    /// What is printed of three letters.
    async fn said(command: DlqCommand) -> (ExitCode, String) {
        let (_directory, config) = place();
        let config = Config::load(&config, &Environment::of_process()).unwrap();
        let dead_letters = config.delivery.dead_letters.as_ref().unwrap();
        let places = places(config.sinks, dead_letters, None).unwrap();
        let mut out = Vec::new();
        let code = act(command, places, Duration::from_secs(1), &mut out).await.unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn letters_are_shown_whole_by_id_and_an_id_that_nobody_has_is_a_failure() {
        let (code, text) = said(DlqCommand::Show { ids: vec!["2".into()] }).await;
        assert_eq!(code, ExitCode::SUCCESS);
        let shown: DeadLetter = serde_json::from_str(&text).unwrap();
        assert_eq!(shown, letter("2"));
        let (code, text) = said(DlqCommand::Show { ids: vec!["9".into()] }).await;
        assert_eq!((code, text.as_str()), (ExitCode::from(FAILED), ""));
    }

    #[tokio::test]
    async fn the_list_for_programs_has_one_letter_a_line() {
        let (_, text) = said(DlqCommand::List { json: true }).await;
        let letters: Vec<DeadLetter> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(letters, ["1", "2", "3"].map(letter));
    }

    #[test]
    fn the_list_says_why() {
        let text = table(&[letter("1")]);
        assert!(text.contains("press") && text.contains("rejected: answered 400"), "{text}");
        assert_eq!(table(&[]), "no dead letters");
    }
}
