//! Why nothing may be decided from what a forge says.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::net::fetch;

/// Nothing may be decided. Its text names forges, repositories and hosts, never a token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has no such forge.
    #[error("forges has no `{forge}`")]
    Unknown {
        /// Which.
        forge: String,
    },
    /// The client of a forge can't be made.
    #[error("setting up the forge {forge}")]
    Setup {
        /// Which.
        forge: String,
        /// Why.
        #[source]
        source: fetch::Error,
    },
    /// It can't be the name of a repository there.
    #[error("`{repository}` can't be a repository of {forge}; write it like acme/app")]
    Name {
        /// Which forge.
        forge: String,
        /// The name.
        repository: String,
    },
    /// The forge has no such repository, or does not show it.
    #[error("{forge} has no repository {repository}, or does not show it to larder's token")]
    Missing {
        /// Which forge.
        forge: String,
        /// The repository.
        repository: String,
    },
    /// The forge refuses the token.
    #[error("{forge} refuses larder's token for {repository}: it answered {status}")]
    Denied {
        /// Which forge.
        forge: String,
        /// The repository.
        repository: String,
        /// 401 or 403.
        status: u16,
    },
    /// The forge is asked too much.
    #[error("{forge} is asked too much; it may be asked again in {} s", wait.as_secs())]
    RateLimited {
        /// Which.
        forge: String,
        /// How long it is not asked.
        wait: Duration,
    },
    /// The forge answered what can't be used.
    #[error("listing {what} of {repository}: {forge} {problem}")]
    Answer {
        /// Which forge.
        forge: String,
        /// The repository.
        repository: String,
        /// `branches` or `pull requests`.
        what: &'static str,
        /// What it did.
        problem: String,
    },
    /// The forge did not answer.
    #[error("asking {forge}")]
    Fetch {
        /// Which.
        forge: String,
        /// Why.
        #[source]
        source: fetch::Error,
    },
    /// As many repositories are remembered as may be.
    #[error("more than {most} repositories of {forge} are asked for; raise forges.{forge}.limits.repositories")]
    Many {
        /// Which forge.
        forge: String,
        /// The limit.
        most: u32,
    },
    /// What was remembered can't be read.
    #[error("reading what is remembered of {repository}")]
    State {
        /// The repository.
        repository: String,
        /// Why.
        #[source]
        source: Arc<crate::store::Error>,
    },
    /// The file of branches can't be read.
    #[error("reading the branches in {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file names no branch, which is more likely a failure of what writes it.
    #[error("{} names no branch", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
}
