//! The form of the log: lines such as eland's (`2026-11-21 12:18:03,123 INFO : …`, in local time), or JSON.

use std::fmt;
use std::io::{IsTerminal, stderr};

use chrono::{Local, SecondsFormat, Utc};
use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What a line of the log looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Whether standard error is a terminal that is to show colours.
pub(super) fn is_coloured() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stderr().is_terminal() && !is_dumb && !is_set("NO_COLOR")
}

/// The present time as the log's JSON has it.
pub(super) fn json_time() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Lines as eland's (Python's `%(asctime)s %(levelname)s : %(message)s`).
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (name, colour) = match *event.metadata().level() {
            Level::ERROR => ("ERROR", 31),
            Level::WARN => ("WARNING", 33),
            Level::INFO => ("INFO", 32),
            Level::DEBUG => ("DEBUG", 34),
            Level::TRACE => ("TRACE", 35),
        };
        let time = Local::now().format("%Y-%m-%d %H:%M:%S,%3f");
        if writer.has_ansi_escapes() {
            write!(writer, "\x1b[2m{time}\x1b[0m \x1b[{colour}m{name}\x1b[0m : ")?;
        } else {
            write!(writer, "{time} {name} : ")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
