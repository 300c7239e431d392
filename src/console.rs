//! Text for people: log lines and progress bars on stderr, tables on stdout.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::{Console, LogFormat};

/// Starts logging of all crates to stderr.
pub(crate) fn start(console: &Console) {
    let level = match (console.quiet, console.verbose) {
        (true, _) => "error",
        (_, true) => "splade=debug,splade_index=debug,splade_trainer=debug,splade_export=debug,warn",
        _ => "splade=info,splade_index=info,splade_trainer=info,splade_export=info,error",
    };
    let builder = tracing_subscriber::fmt().with_writer(|| Stderr).with_env_filter(level);
    // fails if logging was started before, which changes nothing
    let _ = match console.log_format {
        LogFormat::Text => builder.event_format(Plain).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Stderr for log lines. A line to a closed pipe (`splade train … 2>&1 | head`) is dropped, and the command continues.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // the subscriber would report a failure on stderr too, and panic
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = io::stderr().flush();
        Ok(())
    }
}

/// Prints a line of JSON to stderr; a failure to do so is ignored.
#[cfg(feature = "train")]
pub(crate) fn json_line(line: &serde_json::Value) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Log lines for people, without time and target: `error: …`, `warning: …`, and other messages without a prefix.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        let prefix = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        };
        writeln!(writer, "{prefix}{}", message.0)
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}{}", self.0);
        } else {
            self.0.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}

/// Creates a progress bar, hidden unless stderr is a terminal. `total` is none if it is not known.
pub(crate) fn progress(what: &str, total: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() || !tracing::enabled!(Level::INFO) {
        return ProgressBar::hidden();
    }
    let bar = match total {
        Some(total) => ProgressBar::new(total).with_style(style("{msg} {bar:30} {pos}/{len} {per_sec} {eta} left")),
        None => ProgressBar::new_spinner().with_style(style("{msg} {spinner} {pos} {per_sec}")),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_message(what.to_owned())
}

/// Style of a progress bar from a template, which must be valid.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("every template of this program is valid")
}

/// Plain table. The first column and columns of text are left-aligned, columns of numbers right-aligned.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    text: Vec<usize>,
}

impl Table {
    /// Creates a table with this heading.
    pub(crate) fn new<S: Into<String>>(heading: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![heading.into_iter().map(Into::into).collect()], text: vec![0] }
    }

    /// Adds to the columns of text.
    pub(crate) fn with_text(mut self, columns: &[usize]) -> Self {
        self.text.extend(columns);
        self
    }

    /// Rows, the heading first.
    pub(crate) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// True for a column of text, which is left-aligned.
    pub(crate) fn is_text(&self, column: usize) -> bool {
        self.text.contains(&column)
    }

    /// Adds a row.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                line.push_str(if column == 0 { "" } else { "  " });
                line.push_str(&if self.is_text(column) { format!("{cell}{pad}") } else { format!("{pad}{cell}") });
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Description in two columns: labels and values. A value may have several lines.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    rows: Vec<(String, String)>,
}

impl Facts {
    /// Adds a line. An empty label continues the line above.
    pub(crate) fn add(&mut self, label: &str, value: impl fmt::Display) {
        self.rows.push((label.to_owned(), value.to_string()));
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, value) in &self.rows {
            let mut label = label.as_str();
            for line in value.lines() {
                writeln!(f, "{}", format_args!("{label:width$}  {line}").to_string().trim_end())?;
                label = "";
            }
        }
        Ok(())
    }
}

/// Formats a number of bytes: `812 B`, `34.5 kB`, `9.5 MB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.95 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Formats a count: `4.4 M`, `151.0 k`, `420`.
pub(crate) fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.1} k", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", number as f64 / 1e6),
        _ => format!("{:.1} G", number as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (u64::MAX, "18446744.1 TB")];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!([9999, 10_000, 4_400_000].map(count), ["9999", "10.0 k", "4.4 M"]);
    }

    #[test]
    fn facts_are_aligned() {
        let mut facts = Facts::default();
        facts.add("a", "one\ntwo");
        facts.add("long", "three");
        assert_eq!(facts.to_string(), "a     one\n      two\nlong  three\n");
    }
}
