//! What goes to the terminal beside results: log lines and progress on stderr, tables on stdout.

use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::{Console, LogFormat};

/// Log lines of all crates go to stderr from here on.
pub(crate) fn start(console: &Console) {
    let level = match (console.quiet, console.verbose) {
        (true, _) => "error",
        (_, true) => "splade=debug,splade_index=debug,splade_trainer=debug,splade_export=debug,warn",
        _ => "splade=info,splade_index=info,splade_trainer=info,splade_export=info,error",
    };
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(level);
    // a second start (in tests) changes nothing
    let _ = match console.log_format {
        LogFormat::Text => builder.event_format(Plain).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// `warning: …` and bare information, without time and target: lines for people.
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

/// A bar on a terminal, nothing elsewhere; `total` may be unknown.
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

/// A progress style of our own making.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("our templates are well formed")
}

/// A plain table: left-aligned first column, right-aligned others.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this heading.
    pub(crate) fn new<S: Into<String>>(heading: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![heading.into_iter().map(Into::into).collect()] }
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
                line.push_str(&if column == 0 { format!("{cell}{pad}") } else { format!("  {pad}{cell}") });
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
