//! Errors on stderr: an `error:` line, a `hint:` line if there is advice, and an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::cli::{Console, LogFormat};
use crate::commands::interrupt;

/// Error of the program itself, with a hint, and with a flag for bad input.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    hint: String,
    is_bad_input: bool,
}

impl Failure {
    /// An error in the command line or in an input file: exit code 2.
    pub(crate) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), is_bad_input: true }
    }

    /// Any other error: exit code 1.
    pub(crate) fn run(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), is_bad_input: false }
    }
}

/// A [`Failure::input`] as an error of a command.
pub(crate) fn bad_input(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Failure::input(message, hint).into()
}

/// Prints an error. Prints nothing if stdout is a pipe that its reader has closed.
///
/// After a signal the exit code is that of the signal, whatever error the command ended with.
pub(crate) fn report(error: &anyhow::Error, console: &Console) -> ExitCode {
    if is_closed_pipe(error) && !interrupt::received() {
        return ExitCode::SUCCESS;
    }
    let (hint, bad_input) = advice(error);
    let message = one_line(error);
    match console.log_format {
        LogFormat::Text => {
            print_line(&format!("error: {message}"));
            hint.iter().for_each(|hint| print_line(&format!("hint: {hint}")));
        }
        LogFormat::Json => {
            print_line(&serde_json::json!({"level": "ERROR", "message": message, "hint": hint}).to_string());
        }
    }
    ExitCode::from(interrupt::exit_code().unwrap_or(if bad_input { 2 } else { 1 }))
}

/// Prints a line to stderr; a failure to do so is ignored.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints an error of the command line as an `error:` and a `hint:` line. Prints help and version, which clap returns as
/// errors too.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let text = error.render().to_string();
    // clap's paragraphs: the error, tips, usage, a pointer to the help
    let mut paragraphs = text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    print_line(&paragraphs.next().unwrap_or_default());
    let tip = paragraphs.find_map(|paragraph| Some(paragraph.strip_prefix("tip: ")?.to_owned()));
    print_line(&format!("hint: {}", tip.unwrap_or_else(|| "see --help".to_owned())));
    ExitCode::from(2)
}

/// Joins an error and its causes in one line, without causes whose text is already in it.
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

/// Message of the system, without its capital letter and its error number.
pub(crate) fn in_words(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::NotFound {
        return "no such file or folder".to_owned();
    }
    let text = error.to_string();
    let mut characters = text.split(" (os error").next().unwrap_or_default().chars();
    let first = characters.next().map(char::to_lowercase);
    first.into_iter().flatten().chain(characters).collect()
}

/// Hint for unknown keys of a model's `config.json`.
#[cfg(feature = "train")]
const IGNORE_KEYS: &str = "if the key changes nothing in the forward pass, ignore it: --ignore-config-key KEY, in a \
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

/// Hint of an error of a library crate, and true if the input is at fault.
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
