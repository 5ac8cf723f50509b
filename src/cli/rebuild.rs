//! `larder rebuild`: the index again from the tree, while no server holds the folder.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::store::Completeness;
use crate::store::Store;
use crate::store::StoreOptions;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::telemetry::chain;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::console::size;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

pub(super) async fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let mut sources = global.sources();
    sources.store.clone_from(&arguments.store);
    let config = crate::config::load(&sources, &crate::config::process_environment)?.config;
    if !config.store.path.is_dir() {
        return Err(Error::Usage(format!("there is no folder {}", config.store.path.display())));
    }
    let tasks = Tasks::new();
    let outcome = rebuild(&config, &tasks, console).await;
    tasks.stop().await;
    outcome.map_err(|error| Error::Server(chain(&error)))
}

async fn rebuild(config: &Config, tasks: &Tasks, console: &Console) -> Result<Outcome, crate::store::Error> {
    let options = StoreOptions { store: config.store.clone(), lease: config.gc.lease };
    let store = Store::open(options, Clock::system(), tasks.clone(), Arc::new(Metrics::new())).await?;
    let mut progress = store.completeness();
    let work = store.rebuild();
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            Ok(()) = progress.changed() => {
                if let Completeness::Rebuilding { done } = *progress.borrow_and_update() {
                    console.progress(&format!("{done} records read"), false);
                }
            }
        }
    };
    let stored = store.stored();
    store.close().await?;
    done?;
    let folder = config.store.path.display();
    let (proxied, hosted) = (stored.proxied, stored.hosted);
    if console.json {
        console.document(
            &serde_json::json!({ "path": folder.to_string(), "proxied_bytes": proxied, "hosted_bytes": hosted }),
        );
    } else {
        console.progress("", true);
        console.result(&format!(
            "the index of {folder} is complete: {} from upstreams, {} hosted",
            size(proxied),
            size(hosted)
        ));
    }
    Ok(Outcome::Done)
}
