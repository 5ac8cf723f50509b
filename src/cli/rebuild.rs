//! `larder rebuild`: the index again from the tree, while no server holds the folder.

use std::path::PathBuf;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let mut sources = global.sources();
    sources.store.clone_from(&arguments.store);
    let config = crate::config::load(&sources, &crate::config::process_environment)?.config;
    console.note(&format!("rebuilding the index of {}", config.store.path.display()));
    Err(Error::Server("this build cannot rebuild an index yet".to_owned()))
}
