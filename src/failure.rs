//! An error becomes one `error:` line, a `hint:` line where there is something to do, and an exit code.

use std::process::ExitCode;

use crate::cli::{Console, LogFormat};

/// What the command line asks for cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct BadInput {
    message: String,
    hint: String,
}

/// A [`BadInput`] as an error of a command.
pub(crate) fn bad_input(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    BadInput { message: message.into(), hint: hint.into() }.into()
}

/// Says what failed; nothing at all if the reader of our output has gone away.
pub(crate) fn report(error: &anyhow::Error, console: &Console) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let (hint, bad_input) = advice(error);
    let message = one_line(error);
    match console.log_format {
        LogFormat::Text => {
            eprintln!("error: {message}");
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
        }
        LogFormat::Json => eprintln!("{}", serde_json::json!({"level": "ERROR", "message": message, "hint": hint})),
    }
    ExitCode::from(if bad_input { 2 } else { 1 })
}

/// The chain of causes as one line; a cause whose text its effect repeats already is left out.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line.replace('\n', " ")
}

/// What to do, and whether the input is at fault.
fn advice(error: &anyhow::Error) -> (Option<String>, bool) {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<BadInput>() {
            return ((!error.hint.is_empty()).then(|| error.hint.clone()), true);
        }
        if let Some(error) = cause.downcast_ref::<splade_index::Error>() {
            return (error.hint().map(str::to_owned), error.is_bad_input());
        }
        #[cfg(feature = "train")]
        if let Some(error) = cause.downcast_ref::<splade_trainer::Error>() {
            return (error.hint().map(str::to_owned), error.is_bad_input());
        }
        #[cfg(feature = "train")]
        if let Some(error) = cause.downcast_ref::<splade_export::Error>() {
            return (error.hint().map(str::to_owned), error.is_bad_input());
        }
    }
    (None, false)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
