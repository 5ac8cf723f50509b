//! How each kind of forge is asked, and what its items look like.

use serde::Deserialize;
use url::Url;

use crate::clock::Timestamp;
use crate::config::forge::ForgeKind;

use super::Pull;

/// The API of a kind of forge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect(pub(super) ForgeKind);

/// Items of a page where the forge gives as many as it is asked for.
const PER_PAGE: &str = "100";

/// A Gitea gives 50 at most, whatever it is asked for.
const PER_PAGE_GITEA: &str = "50";

/// A branch: all three call it alike.
#[derive(Debug, Deserialize)]
pub(super) struct Branch {
    pub(super) name: String,
}

/// A pull request of GitHub or Gitea, or a merge request of GitLab: keys that both have mean the same.
#[derive(Debug, Deserialize)]
pub(super) struct Item {
    /// GitHub's and Gitea's.
    number: Option<u64>,
    head: Option<Head>,
    /// GitLab's.
    iid: Option<u64>,
    source_branch: Option<String>,
    sha: Option<String>,
    state: String,
    updated_at: String,
    closed_at: Option<String>,
    merged_at: Option<String>,
}

/// Where a pull request comes from.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "ref")]
    pub(super) branch: String,
    #[serde(default)]
    pub(super) sha: String,
    /// Gitea's name of the branch, also when that is gone; GitHub's has its owner in front.
    pub(super) label: Option<String>,
}

/// How a pull request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Closed(Timestamp),
}

impl Dialect {
    pub(super) fn branches(self, api: &Url, repository: &str) -> Url {
        let tail: &[&str] = match self.0 {
            ForgeKind::Github | ForgeKind::Gitea => &["branches"],
            ForgeKind::Gitlab => &["repository", "branches"],
        };
        self.listing(api, repository, tail, &[])
    }

    pub(super) fn open_pulls(self, api: &Url, repository: &str) -> Url {
        match self.0 {
            ForgeKind::Github | ForgeKind::Gitea => self.listing(api, repository, &["pulls"], &[("state", "open")]),
            ForgeKind::Gitlab => self.listing(api, repository, &["merge_requests"], &[("state", "opened")]),
        }
    }

    pub(super) fn closed_pulls(self, api: &Url, repository: &str, since: Timestamp) -> Url {
        match self.0 {
            ForgeKind::Github => {
                let query = [("state", "closed"), ("sort", "updated"), ("direction", "desc")];
                self.listing(api, repository, &["pulls"], &query)
            }
            ForgeKind::Gitea => {
                self.listing(api, repository, &["pulls"], &[("state", "closed"), ("sort", "recentupdate")])
            }
            ForgeKind::Gitlab => {
                let since = since.to_string();
                let query = [("state", "all"), ("order_by", "updated_at"), ("sort", "desc"), ("updated_after", &since)];
                self.listing(api, repository, &["merge_requests"], &query)
            }
        }
    }

    fn listing(self, api: &Url, repository: &str, tail: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = api.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            match self.0 {
                ForgeKind::Github | ForgeKind::Gitea => path.push("repos").extend(repository.split('/')),
                // One segment: its slashes are encoded.
                ForgeKind::Gitlab => path.push("projects").push(repository),
            };
            path.extend(tail);
        }
        let count = match self.0 {
            ForgeKind::Github | ForgeKind::Gitlab => ("per_page", PER_PAGE),
            ForgeKind::Gitea => ("limit", PER_PAGE_GITEA),
        };
        url.query_pairs_mut().clear().extend_pairs(query).extend_pairs([count, ("page", "1")]);
        url
    }

    /// Whether it can be the name of a repository there.
    pub(super) fn is_name(self, repository: &str) -> bool {
        let parts: Vec<&str> = repository.split('/').collect();
        let plain = |part: &&str| {
            let of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            !part.is_empty() && !matches!(*part, "." | "..") && part.bytes().all(of_names)
        };
        let deep = match self.0 {
            ForgeKind::Github | ForgeKind::Gitea => parts.len() == 2,
            ForgeKind::Gitlab => (2..=20).contains(&parts.len()),
        };
        deep && repository.len() <= 512 && parts.iter().all(plain)
    }
}

/// How many items a full page of a listing has.
pub(super) fn per_page(url: &Url) -> usize {
    let found = url.query_pairs().find(|(name, _)| matches!(&**name, "per_page" | "limit"));
    found.and_then(|(_, count)| count.parse().ok()).unwrap_or(usize::MAX)
}

impl Head {
    /// The branch's own name.
    pub(super) fn name(self) -> String {
        match self.label {
            // Gitea, where the branch is gone: `refs/pull/7/head`.
            Some(label) if self.branch.starts_with("refs/") => {
                label.rsplit_once(':').map_or(label.clone(), |(_, name)| name.to_owned())
            }
            _ => self.branch,
        }
    }
}

impl Item {
    /// When it changed last.
    pub(super) fn updated(&self) -> Result<Timestamp, String> {
        moment(&self.updated_at)
    }

    /// The pull request, and how it stands.
    pub(super) fn read(self) -> Result<(Pull, State), String> {
        let state = match self.state.as_str() {
            "open" | "opened" | "locked" => State::Open,
            "closed" | "merged" => {
                let at = self.merged_at.as_ref().or(self.closed_at.as_ref()).unwrap_or(&self.updated_at);
                State::Closed(moment(at)?)
            }
            other => return Err(format!("has one in a state that is not known: {other}")),
        };
        let pull = match (self.number, self.head, self.iid, self.source_branch) {
            (Some(number), Some(head), _, _) => Pull { number, sha: head.sha.clone(), branch: head.name() },
            (_, _, Some(number), Some(branch)) => Pull { number, branch, sha: self.sha.unwrap_or_default() },
            _ => return Err("has one without a number or a branch".to_owned()),
        };
        Ok((pull, state))
    }
}

/// A moment as the forges write it: RFC 3339, with or without fractions.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    let millis = parsed.ok().and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
    millis.map(Timestamp).ok_or_else(|| format!("writes a time that can't be read: {}", text.escape_debug()))
}

#[cfg(test)]
mod tests;
