//! `splade man`: manual pages of the program and of its commands, made from their help.

use std::path::Path;

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use splade_files::AtomicFile;

use crate::cli::{Cli, ManArgs};
use crate::failure::bad_input;
use crate::outputs::{print, refuse_existing, say};

/// Section of the manual: programs.
const SECTION: &str = "1";

pub(crate) fn run(args: &ManArgs) -> Result<()> {
    let mut program = Cli::command();
    // gives the commands the global flags, and their names `splade-index`
    program.build();
    if let Some(dir) = &args.output {
        return write_all(&program, dir, args.overwrite);
    }
    let page = match args.command.as_deref() {
        None => page(&program)?,
        Some(name) => match commands(&program).find(|command| command.get_name() == name) {
            Some(command) => page(command)?,
            None => return Err(bad_input(format!("{name}: no command of splade"), "`splade --help` lists them")),
        },
    };
    print(page)
}

/// Commands that have a page: all but clap's `help`.
fn commands(program: &Command) -> impl Iterator<Item = &Command> {
    std::iter::once(program).chain(program.get_subcommands().filter(|command| command.get_name() != "help"))
}

fn write_all(program: &Command, dir: &Path, overwrite: bool) -> Result<()> {
    let path = |command: &Command| dir.join(format!("{}.{SECTION}", name(command)));
    for command in commands(program) {
        refuse_existing(&path(command), overwrite)?;
    }
    for command in commands(program) {
        let path = path(command);
        AtomicFile::write_whole(&path, page(command)?.as_bytes())?;
        say(path.display())?;
    }
    Ok(())
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> Result<String> {
    let mut page = Vec::new();
    Man::new(command.clone()).title(name(command)).section(SECTION).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}
