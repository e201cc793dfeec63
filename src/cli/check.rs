//! `rust-eland check`.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::hints;
use super::report::{Report, ReportArguments};
use crate::workflow::{CheckLine, CheckState, ClusterCheck, Subject};

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    report: ReportArguments,
}

/// The check of a cluster, for people and for programs.
#[derive(Debug, Serialize)]
struct CheckReport {
    checks: Vec<Line>,
    ok: usize,
    warnings: usize,
    failures: usize,
}

#[derive(Debug, Serialize)]
struct Line {
    check: String,
    state: CheckState,
    summary: String,
    /// What to do.
    hint: Option<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    details: Value,
}

impl CheckArguments {
    /// Prints the check. Returns an error if a line is a failure.
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let check = ClusterCheck::of(self.connection.connection()?).await?;
        let failure = check.lines.iter().find(|line| line.state == CheckState::Failure);
        let code = failure.map(exit_code);
        let failures = check.count(CheckState::Failure);
        self.report.print(&CheckReport {
            ok: check.count(CheckState::Ok),
            warnings: check.count(CheckState::Warning),
            failures,
            checks: check.lines.into_iter().map(Line::of).collect(),
        })?;
        match code {
            None => Ok(()),
            Some(code) => Err(CommandError::Check { failures, code }),
        }
    }
}

/// The exit code that an import would have because of a failure.
fn exit_code(line: &CheckLine) -> u8 {
    match line.subject {
        Subject::Licence => 6,
        Subject::Nodes => 8,
        _ => 5,
    }
}

impl Line {
    fn of(line: CheckLine) -> Self {
        Self {
            check: line.subject.to_string(),
            state: line.state,
            summary: line.summary,
            hint: line.hint.map(|hint| hints::rendered(&hint)),
            details: line.details,
        }
    }
}

impl Report for CheckReport {
    fn text(&self) -> String {
        const STATE: usize = 9;
        let width = self.checks.iter().map(|line| line.check.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for Line { check, state, summary, hint, .. } in &self.checks {
            let state = match state {
                CheckState::Ok => "ok",
                CheckState::Warning => "warning",
                CheckState::Failure => "FAILURE",
            };
            let indent = STATE + width + 2;
            let summary = summary.replace('\n', &format!("\n{:indent$}", ""));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{state:STATE$}{check:width$}  {summary}");
            if let Some(hint) = hint {
                let _ = writeln!(text, "{:indent$}{hint}", "");
            }
        }
        let Self { ok, warnings, failures, .. } = self;
        let many = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        let (warnings, failures) = (many(*warnings, "warning"), many(*failures, "failure"));
        let _ = write!(text, "\n{ok} ok, {warnings}, {failures}");
        text
    }
}
