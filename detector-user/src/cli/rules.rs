//! `detector rules`: check rules files, print their schema.

use std::{
    io::{ErrorKind, Write, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use schemars::{Schema, schema_for};
use serde::Serialize;

use crate::{
    config::{Config, ConfigDocument, Environment},
    rules::{
        file::{Checked, RulesError, load_untrusted},
        raw::{ApplicationDocument, RuleDocument},
        summary::{ApplicationSummary, RuleSummary, table},
    },
};

/// Rules were refused.
const REFUSED: u8 = 1;

/// Check rules files, or print the JSON Schema an editor can check them with
#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Check rules as `detector run` would, and say what each needs
    #[command(after_help = "Exit codes: 0 good, 1 refused (every problem with file, line and \
                            column), or warned of with --strict, 2 wrong usage.\n\nExamples: \
                            detector rules check /etc/detector/rules.d\n          detector rules \
                            check --strict --config /etc/detector/config.yaml")]
    Check {
        /// Rules files, or directories with *.yaml and *.yml; all together are one rule set
        #[arg(required_unless_present = "config", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The config they are for: then its UE pools are known, and without a FILE its rules are
        /// checked
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Warnings too are a reason to refuse
        #[arg(long)]
        strict: bool,
        /// Tables for people, or JSON for programs
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Print the JSON Schema of the documents
    #[command(after_help = "Example: detector rules schema > detector.schema.json, and in an \
                            editor with the YAML language server, on a file's first line:\n  # \
                            yaml-language-server: $schema=detector.schema.json")]
    Schema {
        /// Only this kind of document; all three if left out
        #[arg(long, value_enum)]
        kind: Option<Kind>,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Rule,
    Application,
    Config,
}

/// Runs `detector rules ...`.
pub fn run(args: RulesArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        RulesCommand::Check { files, config, strict, output } => {
            let asked = Asked { files, config, strict, output };
            check(&asked, &mut stdout().lock(), &mut stderr().lock())
        }
        RulesCommand::Schema { kind } => {
            print(&mut stdout(), &serde_json::to_string_pretty(&schema(kind))?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What `check` is to check.
struct Asked {
    files: Vec<PathBuf>,
    config: Option<PathBuf>,
    strict: bool,
    output: Output,
}

fn check(asked: &Asked, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let result = load(asked);
    let good = result.as_ref().is_ok_and(|found| !asked.strict || found.warnings.is_empty());
    match (asked.output, &result) {
        (Output::Json, _) => {
            print(out, &serde_json::to_string_pretty(&Report::of(good, &result))?)?;
        }
        (Output::Text, Ok(Checked { set, warnings })) => {
            print(out, &table(set))?;
            for warning in warnings {
                print(err, &format!("warning: {warning}"))?;
            }
            if !good {
                print(err, &format!("{}: refused (--strict)", counted(warnings.len(), "warning")))?;
            }
        }
        (Output::Text, Err(problems)) => {
            let count = counted(problems.list().len(), "problem");
            print(err, &format!("{problems}\n{count}: rules refused"))?;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

fn load(asked: &Asked) -> Result<Checked, RulesError> {
    let Some(path) = &asked.config else { return load_untrusted(&asked.files, &[]) };
    let config = config_of_rules(path)?;
    let pools: Vec<IpNet> = config.ue_pools.iter().map(|pool| pool.cidr).collect();
    match asked.files.as_slice() {
        [] => load_untrusted(&config.rules, &pools),
        files => load_untrusted(files, &pools),
    }
}

/// An agent's config, where only its rules and whom they are for are of interest.
pub(super) fn config_of_rules(path: &Path) -> Result<Config, RulesError> {
    let mut environment = Environment::of_process();
    // Where events go is no matter here.
    environment.variables.entry("K_SINK".to_owned()).or_insert("http://localhost/".to_owned());
    Config::load(path, &environment)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A reader that has seen enough (`| head`) is no error.
fn print(out: &mut dyn Write, text: &str) -> std::io::Result<()> {
    match writeln!(out, "{text}") {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// What `--output json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    applications: Vec<ApplicationSummary>,
    rules: Vec<RuleSummary>,
    problems: Vec<ProblemReport<'a>>,
    /// Accepted, unless `--strict`.
    warnings: Vec<ProblemReport<'a>>,
}

#[derive(Serialize)]
struct ProblemReport<'a> {
    file: &'a str,
    line: u32,
    column: u32,
    field: &'a str,
    message: &'a str,
}

impl<'a> Report<'a> {
    fn of(ok: bool, result: &'a Result<Checked, RulesError>) -> Self {
        let (set, problems, warnings) = match result {
            Ok(Checked { set, warnings }) => (Some(set), &[][..], warnings.as_slice()),
            Err(problems) => (None, problems.list(), &[][..]),
        };
        let problem = |p: &'a crate::yaml::Problem| ProblemReport {
            file: &p.place.file,
            line: p.place.line,
            column: p.place.column,
            field: &p.field,
            message: &p.message,
        };
        Self {
            ok,
            applications: set.map(ApplicationSummary::all).unwrap_or_default(),
            rules: set.map(RuleSummary::all).unwrap_or_default(),
            problems: problems.iter().map(problem).collect(),
            warnings: warnings.iter().map(problem).collect(),
        }
    }
}

/// Any document of Detector's.
#[derive(schemars::JsonSchema)]
#[schemars(untagged, title = "Detector document")]
#[expect(dead_code, reason = "never made; only its schema is used")]
enum AnyDocument {
    Application(Box<ApplicationDocument>),
    Rule(Box<RuleDocument>),
    Config(Box<ConfigDocument>),
}

fn schema(kind: Option<Kind>) -> Schema {
    match kind {
        None => schema_for!(AnyDocument),
        Some(Kind::Rule) => schema_for!(RuleDocument),
        Some(Kind::Application) => schema_for!(ApplicationDocument),
        Some(Kind::Config) => schema_for!(ConfigDocument),
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
