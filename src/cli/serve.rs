//! `larder serve`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config;
use crate::config::Config;
use crate::config::Reload;
use crate::config::client::welcome;
use crate::config::telemetry::LogFormat;
use crate::server::app;
use crate::telemetry::chain;
use crate::telemetry::logging::Logging;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::holder;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The registry's address with its port, instead of the configuration's; may be given several times
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// The folder that bytes are kept in, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let mut sources = global.sources();
    sources.listen.clone_from(&arguments.listen);
    sources.store.clone_from(&arguments.store);
    let loaded = config::load(&sources, &config::process_environment)?;
    for remark in &loaded.remarks {
        console.warning(&remark.to_string());
    }
    let (reload, current) = Reload::new(sources, config::process_environment, loaded);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::File { doing: "starting the runtime".to_owned(), source })?;
    let addresses = addresses(&current.borrow());
    runtime.block_on(start(current, reload, console)).map_err(|error| explain(error.as_ref(), &addresses))?;
    Ok(Outcome::Done)
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Serves until the process is told to stop.
async fn start(current: watch::Receiver<Arc<Config>>, reload: Reload, console: &Console) -> Result<(), Fault> {
    let (clock, now) = (Clock::system(), Arc::clone(&current.borrow()));
    let logging = Logging::start(&now.telemetry, &clock)?;
    let app = app::build(current, Some(logging), clock).await?;
    app.follow_process(reload)?;
    match now.telemetry.format {
        LogFormat::Text => console.note(welcome(&now, &app.registry, app.admin).trim_end()),
        // Whoever reads JSON from standard error wants nothing else there.
        LogFormat::Json => tracing::info!(registry = ?app.registry, admin = %app.admin, "listening"),
    }
    app.run(std::future::pending()).await?;
    Ok(())
}

/// The addresses with the way to choose another.
fn addresses(config: &Config) -> Vec<(SocketAddr, &'static str)> {
    let mut addresses: Vec<_> = config.listen.iter().map(|address| (*address, "--listen")).collect();
    addresses.push((config.admin.listen, "admin.listen in the configuration"));
    addresses
}

/// The whole of an error; where an address is in use, with the program that holds it and the way to another.
fn explain(error: &(dyn std::error::Error + 'static), addresses: &[(SocketAddr, &'static str)]) -> Error {
    let mut text = chain(error);
    let in_use = std::iter::successors(Some(error), |error| error.source()).any(is_in_use);
    if in_use {
        for (address, flag) in addresses {
            if let Some(holder) = holder::of(*address) {
                let name = if holder.name.is_empty() { "a program".to_owned() } else { format!("`{}`", holder.name) };
                text = format!(
                    "{text}; {address} is held by {name} (process {}); {flag} takes another address",
                    holder.pid
                );
            }
        }
        if !text.contains("held by") {
            text = format!("{text}; --listen takes another address for the registry, admin.listen for the API");
        }
    }
    Error::Server(text)
}

fn is_in_use(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[derive(Debug, thiserror::Error)]
    #[error("listening on the registry's address")]
    struct Listen(#[source] std::io::Error);

    #[test]
    fn an_address_in_use_is_told_with_its_owner_and_the_flag() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let error = std::net::TcpListener::bind(address).expect_err("in use");
        let said = explain(&Listen(error), &[(address, "--listen")]).to_string();
        let wanted = format!("(process {}); --listen takes another address", std::process::id());
        assert!(said.starts_with("listening on the registry's address: ") && said.contains(&wanted), "{said}");
    }

    #[test]
    fn another_fault_is_told_with_its_causes() {
        let said = explain(&Listen(std::io::Error::other("no such device")), &[]).to_string();
        assert_eq!(said, "listening on the registry's address: no such device");
    }
}
