//! The format of the log: lines such as those of eland (`2026-11-21 12:18:03,123 INFO : …`, in local time), or JSON.

use std::fmt;
use std::io::{self, IsTerminal, Write, stderr};

use chrono::{Local, SecondsFormat, Utc};
use clap::ValueEnum;
use indicatif::MultiProgress;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::secrets::redact;
use crate::terminal_text::{escape, escape_json};

/// The format of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Readable lines
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Whether standard error is a terminal that shows colours.
pub(super) fn is_coloured() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stderr().is_terminal() && !is_dumb && !is_set("NO_COLOR")
}

/// The current time in the format of the JSON log.
pub(super) fn json_time() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Lines in the format of eland (Python's `%(asctime)s %(levelname)s : %(message)s`).
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
        // Messages may contain text from a file or a server, so it is escaped. Only the escape sequences for colours reach the
        // terminal.
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        writeln!(writer, "{}", escape(&text))
    }
}

/// Writes log lines to standard error, above the progress bars and without secrets.
#[derive(Debug)]
pub(super) struct LogWriter<W = io::Stderr> {
    to: W,
    screen: MultiProgress,
    format: LogFormat,
}

impl LogWriter {
    pub(super) fn new(screen: MultiProgress, format: LogFormat) -> Self {
        Self { to: stderr(), screen, format }
    }
}

impl<W: Write> Write for LogWriter<W> {
    /// Writes a whole line.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = redact(&String::from_utf8_lossy(bytes));
        if self.format == LogFormat::Json {
            text = escape_json(&text);
        }
        // If standard error is closed, the log is lost and the program goes on.
        let _ = self.screen.suspend(|| self.to.write_all(text.as_bytes()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Secret;

    #[test]
    fn log_writer_hides_secrets() {
        let _secret = Secret::new("correct horse");
        let (screen, format) = (MultiProgress::new(), LogFormat::Text);
        let mut log = LogWriter { to: Vec::new(), screen, format };
        writeln!(log, "password=correct horse").unwrap();
        assert_eq!(String::from_utf8(log.to).unwrap(), "password=…\n");
    }
}
