//! SIGINT and SIGTERM end a command between two steps: temporary files are removed, a training is saved.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::Failure;

/// Number of the first signal received; 0 if there was none.
static RECEIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Records the first signal; the second one ends the process at once.
///
/// SIGHUP keeps its default action, so that `nohup` works.
pub(crate) fn watch() -> Result<()> {
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // handlers run in this order, so the first signal does not yet find the flag that it sets
        flag::register_conditional_shutdown(signal, i32::from(exit_code_of(signal as usize)), Arc::clone(&again))?;
        flag::register(signal, Arc::clone(&again))?;
        flag::register_usize(signal, Arc::clone(&RECEIVED), signal as usize)?;
    }
    Ok(())
}

/// True if a signal was received.
pub(crate) fn received() -> bool {
    exit_code().is_some()
}

/// Exit code of a command that a signal ended, as shells report it: 130 after SIGINT, 143 after SIGTERM.
pub(crate) fn exit_code() -> Option<u8> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(exit_code_of(signal)),
    }
}

fn exit_code_of(signal: usize) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Fails if a signal was received.
pub(crate) fn check() -> Result<()> {
    if received() { Err(error("interrupted", "")) } else { Ok(()) }
}

/// Error of a command that a signal ended. The message has the state that it leaves.
pub(crate) fn error(message: impl Into<String>, hint: &str) -> anyhow::Error {
    Failure::run(message, hint).into()
}
