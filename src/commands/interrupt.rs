//! Ctrl-C ends a command between two pieces of work, so that temporary files are removed.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Notes the first interrupt; the second ends the process at once.
pub(crate) fn watch() -> Result<()> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(1);
        }
    })?;
    Ok(())
}

/// Whether an interrupt came.
pub(crate) fn came() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// An error if an interrupt came.
pub(crate) fn check() -> Result<()> {
    if came() {
        bail!("interrupted: nothing was written")
    }
    Ok(())
}
