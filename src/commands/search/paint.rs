//! Colours of hits on a terminal.

use std::io;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};

use crate::cli::ColorChoice;

/// Styles of the parts of a hit, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// Colours as chosen. `auto` means a terminal that supports them, without `NO_COLOR` in the environment.
    pub(super) fn new(choice: ColorChoice) -> Self {
        let on = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        };
        Self { on }
    }

    /// Title of a hit.
    pub(super) fn title(self, text: &str) -> String {
        self.styled(Style::new().bold(), text)
    }

    /// Word of the query in a text.
    pub(super) fn word(self, text: &str) -> String {
        self.styled(Style::new().bold().fg_color(Some(AnsiColor::Green.into())), text)
    }

    /// Word of a text that is in the query's vector, but not in its text.
    pub(super) fn expansion(self, text: &str) -> String {
        self.styled(Style::new().underline().fg_color(Some(AnsiColor::Cyan.into())), text)
    }

    /// Text of less importance.
    pub(super) fn dimmed(self, text: &str) -> String {
        self.styled(Style::new().dimmed(), text)
    }

    fn styled(self, style: Style, text: &str) -> String {
        if self.on && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}
