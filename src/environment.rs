//! Values of environment variables. An empty variable counts as unset.

use std::path::PathBuf;

/// Text of a variable.
pub(crate) fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// True for the values that huggingface_hub reads as true.
pub(crate) fn flag(name: &str) -> bool {
    text(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_uppercase().as_str()))
}

/// Path in a variable; `~` at its start is the user's home folder.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    let path = PathBuf::from(value);
    Some(match path.strip_prefix("~") {
        Ok(rest) => std::env::home_dir().unwrap_or_default().join(rest),
        Err(_) => path,
    })
}
