//! The program `splade`: commands, terminal, network.
//!
//! `main` parses the command line, runs one command (a file of `commands/` each), and turns an error into one line and an
//! exit code.

#![forbid(unsafe_code)]

mod answer;
mod cli;
mod commands;
mod comparison;
mod console;
mod dense;
mod digest;
mod documents;
mod encoders;
mod engines;
mod environment;
mod evaluation;
mod failure;
mod http;
mod hub;
#[cfg(feature = "train")]
mod mlflow;
mod outputs;
mod passages;
mod ranking;
mod report;
#[cfg(feature = "serve")]
mod server;
mod share;
mod sparsity;
mod tasks;
#[cfg(feature = "train")]
mod texts;
mod vectors;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_usage(&error),
    };
    console::start(&cli.console);
    silence_guarded_panics();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, &cli.console),
    }
}

/// Silences panics that the libraries catch and return as errors.
fn silence_guarded_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !splade_core::in_guarded_call() {
            default(info);
        }
    }));
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    commands::interrupt::watch()?;
    if cli.offline {
        hub::go_offline();
    }
    match &cli.command {
        #[cfg(feature = "train")]
        Command::Train(args) => commands::train::run(args, &cli.console),
        #[cfg(feature = "train")]
        Command::ExportOnnx(args) => commands::export_onnx::run(args),
        Command::Encode(args) => commands::encode::run(args),
        Command::Index(args) => commands::index::run(args),
        Command::ExportVectors(args) => commands::export_vectors::run(args),
        Command::Merge(args) => commands::merge::run(args),
        Command::Search(args) => commands::search::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => commands::serve::run(args),
        #[cfg(feature = "train")]
        Command::Mine(args) => commands::mine::run(args),
        Command::EvalMteb(args) => commands::eval_mteb::run(args),
        Command::EvalRun(args) => commands::eval_run::run(args),
        Command::Tune(args) => commands::tune::run(args),
        #[cfg(feature = "train")]
        Command::Verify(args) => commands::verify::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Push(args) => commands::push::run(args),
        Command::PushIndex(args) => commands::push_index::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
    }
}
