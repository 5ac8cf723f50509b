//! What a forge's webhooks tell. Hints: they make larder look again, and say since when something is gone.

use super::Pull;

/// What happened in a repository of a forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The repository, as the forge calls it: `acme/app`.
    pub repository: String,
    /// What happened there.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A branch came to be, or has another commit.
    Pushed {
        /// Its name, without `refs/heads/`.
        branch: String,
        /// The commit that it means now, where the forge says so.
        sha: Option<String>,
    },
    /// A branch is gone.
    Deleted {
        /// Its name, without `refs/heads/`.
        branch: String,
    },
    /// A pull request was opened, opened again, or has another commit.
    PullOpened(Pull),
    /// A pull request was closed or merged.
    PullClosed(Pull),
}
