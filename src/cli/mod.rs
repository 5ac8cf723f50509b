//! The command line: one file a command.
//!
//! Results go to standard output, progress and log to standard error. Exit codes: 0 done; 1 something asked for was not
//! done; 2 wrong usage or configuration; 3 nothing listens at the address.

mod ask;
mod ask_tls;
mod check;
mod client_config;
mod completions;
mod console;
mod doctor;
mod explain;
mod gc;
mod holder;
mod ls;
mod missing;
mod prune;
mod rebuild;
mod refresh;
mod report;
mod runs;
mod scrub;
mod serve;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

use crate::config;
use crate::config::Loaded;
use crate::config::Sources;

use console::Console;

/// The configuration that is read when none is named, where it is there.
const DEFAULT_FILE: &str = "/etc/larder/larder.yaml";

/// An OCI layer cache for CI: pulls through, keeps, and serves while the registry is away.
#[derive(Debug, Parser)]
#[command(
    name = "larder",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct CommandLine {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that stand before or after the command.
#[derive(Debug, clap::Args)]
struct Global {
    /// The configuration file [default: /etc/larder/larder.yaml when it is there]
    #[arg(long, global = true, env = "LARDER_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// The admin address of the server to ask, instead of the configuration's
    #[arg(long, global = true, value_name = "URL")]
    admin: Option<String>,
    /// Print one JSON document, or lines of JSON where it streams
    #[arg(long, global = true)]
    json: bool,
    /// Print results and errors only
    #[arg(long, global = true)]
    quiet: bool,
    /// What is logged: error, warn, info, debug, trace, or a filter of tracing
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; stays in the foreground. SIGTERM drains, SIGHUP reloads
    Serve(serve::Arguments),
    /// Read the configuration and say what is wrong with it, or what it means
    Check(check::Arguments),
    /// The files that make a client pull through here
    ClientConfig(client_config::Arguments),
    /// Make the requests that each client would make, and say in words what is wrong
    Doctor(doctor::Arguments),
    /// What is here, with sizes, origin and last use
    Ls(ls::Arguments),
    /// How the server is
    Status(status::Arguments),
    /// Where an image is, and why a pull of it hits or misses
    Explain(explain::Arguments),
    /// Bytes, money and pulls saved: per repository, branch and tag
    Report(report::Arguments),
    /// Look at the upstream now
    Refresh(refresh::Arguments),
    /// Drop what is held of an image
    Evict(refresh::Arguments),
    /// Which images of a matrix are neither here nor upstream, as the matrix of a CI job
    Missing(missing::Arguments),
    /// What policies let go: the plan first, then exactly that plan
    Prune(prune::Arguments),
    /// Hash what is stored again, paced
    Scrub,
    /// Collect what nothing names any more, now
    Gc,
    /// What pipelines' runs saw
    #[command(subcommand)]
    Runs(runs::Order),
    /// Make the index again from the tree, while no server runs
    Rebuild(rebuild::Arguments),
    /// The completions of a shell
    Completions(completions::Arguments),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The configuration can't be used.
    #[error(transparent)]
    Configuration(#[from] config::Error),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers at the address.
    #[error("nothing answers at {address}: {source}; is the server running? another address is given with {flag}")]
    Nobody { address: String, flag: &'static str, source: std::io::Error },
    /// The server said no, or broke off.
    #[error("{0}")]
    Refused(String),
    /// A file could not be read or written.
    #[error("{doing}: {source}")]
    File { doing: String, source: std::io::Error },
    /// The server could not be started, or ended with a fault.
    #[error("{0}")]
    Server(String),
}

/// What a command that ran to its end came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Something asked for was not done; it was said which.
    Undone,
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) | Self::Usage(_) => ExitCode::from(2),
            Self::Nobody { .. } => ExitCode::from(3),
            Self::Refused(_) | Self::File { .. } | Self::Server(_) => ExitCode::FAILURE,
        }
    }
}

/// Runs the command line of this process and chooses the exit code.
pub fn run() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version are results, everything else is a complaint; clap prints each where it belongs.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let console = Console::of_process(line.global.json, line.global.quiet);
    match perform(&line, &console) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Undone) => ExitCode::FAILURE,
        Err(error) => {
            console.error(&error.to_string());
            error.exit_code()
        }
    }
}

fn perform(line: &CommandLine, console: &Console) -> Result<Outcome, Error> {
    let global = &line.global;
    match &line.command {
        Command::Serve(arguments) => serve::run(arguments, global, console),
        Command::Check(arguments) => check::run(arguments, global, console),
        Command::ClientConfig(arguments) => client_config::run(arguments, global, console),
        Command::Rebuild(arguments) => block_on(rebuild::run(arguments, global, console)),
        Command::Completions(arguments) => Ok(completions::run(arguments, console)),
        Command::Doctor(arguments) => block_on(doctor::run(arguments, global, console)),
        Command::Ls(arguments) => block_on(ls::run(arguments, global, console)),
        Command::Status(arguments) => block_on(status::run(arguments, global, console)),
        Command::Explain(arguments) => block_on(explain::run(arguments, global, console)),
        Command::Report(arguments) => block_on(report::run(arguments, global, console)),
        Command::Refresh(arguments) => block_on(refresh::run(refresh::Order::Refresh, arguments, global, console)),
        Command::Evict(arguments) => block_on(refresh::run(refresh::Order::Evict, arguments, global, console)),
        Command::Gc => block_on(gc::run(global, console)),
        Command::Prune(arguments) => block_on(prune::run(arguments, global, console)),
        Command::Missing(arguments) => block_on(missing::run(arguments, global, console)),
        Command::Scrub => block_on(scrub::run(global, console)),
        Command::Runs(order) => block_on(runs::run(order, global, console)),
    }
}

/// Runs a command that waits for others; one thread is enough for it.
fn block_on(command: impl Future<Output = Result<Outcome, Error>>) -> Result<Outcome, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::File { doing: "starting the runtime".to_owned(), source })?;
    runtime.block_on(command)
}

impl Global {
    /// Where the configuration comes from.
    fn sources(&self) -> Sources {
        let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
        Sources { file: self.config.clone().or_else(default), log: self.log.clone(), ..Sources::default() }
    }

    /// Reads the configuration for a command that only looks at it.
    fn load(&self) -> Result<Loaded, Error> {
        Ok(config::load(&self.sources(), &config::process_environment)?)
    }
}

#[cfg(test)]
mod tests;
