//! Flags of `completions` and `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print completions of commands and flags for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade completions bash > splade.bash
  splade completions zsh > _splade
  splade completions fish > splade.fish

Where they go: bash: ~/.local/share/bash-completion/completions/splade; zsh: _splade in a folder of
$fpath; fish: ~/.config/fish/completions/splade.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell
    pub(crate) shell: Shell,
}

/// Print a manual page, or write all of them
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade man index > splade-index.1
  splade man --output man1")]
pub(crate) struct ManArgs {
    /// Command whose page is printed; default: the page of splade
    #[arg(conflicts_with = "output")]
    pub(crate) command: Option<String>,
    /// Write the pages of splade and of all commands into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Replace existing pages
    #[arg(long, requires = "output")]
    pub(crate) overwrite: bool,
}
