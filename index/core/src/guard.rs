//! [`guarded`]: calls of libraries that panic on broken files; a panic becomes an error.
//!
//! The panic hook of the process stays unchanged, and the default hook prints caught panics too. To print nothing, a program
//! installs a hook that is silent while [`in_guarded_call`] is true.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// True while this thread runs a call whose panics become errors.
///
/// ```
/// let default = std::panic::take_hook();
/// std::panic::set_hook(Box::new(move |info| {
///     if !splade_core::in_guarded_call() {
///         default(info);
///     }
/// }));
/// ```
#[must_use]
pub fn in_guarded_call() -> bool {
    GUARDED.get()
}

/// Runs `work`; a panic in it is returned as the first line of its message.
///
/// # Errors
/// A panic.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    result.map_err(|panic| {
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        format!("broken: {}", message.lines().next().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_line() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| -> u8 { panic!("no\nroom") }), Err("broken: no".to_owned()));
        let n = std::hint::black_box(0);
        assert_eq!(guarded(|| [1][1 / n]), Err("broken: attempt to divide by zero".to_owned()));
    }

    #[test]
    fn a_guarded_call_is_visible_to_a_hook_and_ends_with_it() {
        assert!(!in_guarded_call());
        let inner = guarded(|| {
            let nested = guarded(in_guarded_call);
            (nested, in_guarded_call())
        });
        assert_eq!(inner, Ok((Ok(true), true)));
        assert!(guarded(|| -> u8 { panic!("no") }).is_err());
        assert!(!in_guarded_call());
    }
}
