//! `detector rules`: check rules files, print their schema.

use std::{
    io::{ErrorKind, Write, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use schemars::{Schema, schema_for};
use serde::Serialize;

use crate::{
    config::ConfigDocument,
    rules::{
        file::{RulesError, load_untrusted},
        model::RuleSet,
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
                            column), 2 wrong usage.\n\nExample: detector rules check \
                            /etc/detector/rules.d")]
    Check {
        /// Rules files, or directories with *.yaml and *.yml; all together are one rule set
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
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
        RulesCommand::Check { files, output } => {
            check(&files, output, &mut stdout().lock(), &mut stderr().lock())
        }
        RulesCommand::Schema { kind } => {
            print(&mut stdout(), &serde_json::to_string_pretty(&schema(kind))?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(
    files: &[PathBuf],
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let result = load_untrusted(files);
    match (output, &result) {
        (Output::Json, _) => {
            print(out, &serde_json::to_string_pretty(&Report::of(&result))?)?;
        }
        (Output::Text, Ok(set)) => print(out, &table(set))?,
        (Output::Text, Err(problems)) => {
            let count = problems.list().len();
            let s = if count == 1 { "" } else { "s" };
            print(err, &format!("{problems}\n{count} problem{s}: rules refused"))?;
        }
    }
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
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
    fn of(result: &'a Result<RuleSet, RulesError>) -> Self {
        let (set, problems) = match result {
            Ok(set) => (Some(set), &[][..]),
            Err(problems) => (None, problems.list()),
        };
        let problem = |p: &'a crate::yaml::Problem| ProblemReport {
            file: &p.place.file,
            line: p.place.line,
            column: p.place.column,
            field: &p.field,
            message: &p.message,
        };
        Self {
            ok: result.is_ok(),
            applications: set.map(ApplicationSummary::all).unwrap_or_default(),
            rules: set.map(RuleSummary::all).unwrap_or_default(),
            problems: problems.iter().map(problem).collect(),
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
