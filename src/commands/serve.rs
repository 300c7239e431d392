//! `splade serve`: indexes over HTTP, until a signal to stop.

use anyhow::Result;

use crate::cli::ServeArgs;
use crate::encoders::use_threads;
use crate::server;

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    use_threads(args.network.threads);
    server::serve(args)
}
