//! Errors on the terminal: one `error:` line, a `hint:` line where there is something to do, and an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::cli::{Console, LogFormat};
use crate::commands::interrupt;

/// Error of the program itself: what failed, what to do, and whose fault it is.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    hint: String,
    is_bad_input: bool,
}

impl Failure {
    /// A fault of what was given, a command line or a file: exit code 2.
    pub(crate) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), is_bad_input: true }
    }

    /// Any other fault: exit code 1.
    pub(crate) fn run(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), is_bad_input: false }
    }
}

/// A [`Failure::input`] as an error of a command.
pub(crate) fn bad_input(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Failure::input(message, hint).into()
}

/// Prints what failed; nothing if the reader of our output has closed it.
///
/// After a signal the exit code is that of the signal, whatever error the command ended with.
pub(crate) fn report(error: &anyhow::Error, console: &Console) -> ExitCode {
    if is_closed_pipe(error) && !interrupt::came() {
        return ExitCode::SUCCESS;
    }
    let (hint, bad_input) = advice(error);
    let message = one_line(error);
    match console.log_format {
        LogFormat::Text => {
            complain(&format!("error: {message}"));
            hint.iter().for_each(|hint| complain(&format!("hint: {hint}")));
        }
        LogFormat::Json => {
            complain(&serde_json::json!({"level": "ERROR", "message": message, "hint": hint}).to_string());
        }
    }
    ExitCode::from(interrupt::exit_code().unwrap_or(if bad_input { 2 } else { 1 }))
}

/// Prints a line to stderr; a failure to do so is ignored.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints wrong flags in the same two lines; prints help and version, which clap calls errors too.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let text = error.render().to_string();
    // clap's paragraphs: what is wrong, tips, usage, where to find help
    let mut paragraphs = text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    complain(&paragraphs.next().unwrap_or_default());
    let tip = paragraphs.find_map(|paragraph| Some(paragraph.strip_prefix("tip: ")?.to_owned()));
    complain(&format!("hint: {}", tip.unwrap_or_else(|| "see --help".to_owned())));
    ExitCode::from(2)
}

/// Chain of causes as one line, without causes whose text is already in it.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            line = line.replace(&text, &in_words(error));
        }
    }
    line.replace('\n', " ")
}

/// Message of the system, without its capital letter and number.
pub(crate) fn in_words(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::NotFound {
        return "no such file or folder".to_owned();
    }
    let text = error.to_string();
    let mut characters = text.split(" (os error").next().unwrap_or_default().chars();
    let first = characters.next().map(char::to_lowercase);
    first.into_iter().flatten().chain(characters).collect()
}

/// Advice for keys of a model's config.json that are not known.
#[cfg(feature = "train")]
const IGNORE_KEYS: &str = "remove what changes nothing in the forward pass, or ignore it: --ignore-config-key KEY, in a \
                           training config model.ignored_config_keys";

/// Hint of an error, and true if the input is at fault.
fn advice(error: &anyhow::Error) -> (Option<String>, bool) {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Failure>() {
            return ((!error.hint.is_empty()).then(|| error.hint.clone()), error.is_bad_input);
        }
        if let Some(found) = library_advice(cause) {
            return found;
        }
    }
    (None, false)
}

/// The hint and the fault of an error of one of our libraries.
fn library_advice(cause: &(dyn std::error::Error + 'static)) -> Option<(Option<String>, bool)> {
    macro_rules! of {
        ($($error:ty),*) => {
            $(if let Some(error) = cause.downcast_ref::<$error>() {
                return Some((error.hint().map(str::to_owned), error.kind().is_bad_input()));
            })*
        };
    }
    of!(splade_core::Error, splade_files::Error, splade_encode::Error, splade_eval::Error, splade_index::Error);
    #[cfg(feature = "train")]
    if let Some(error) = cause.downcast_ref::<splade_trainer::Error>()
        && !error.unknown_config_keys().is_empty()
    {
        return Some((Some(IGNORE_KEYS.to_owned()), error.kind().is_bad_input()));
    }
    #[cfg(feature = "train")]
    of!(splade_trainer::Error, splade_export::Error);
    None
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
