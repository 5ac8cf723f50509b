//! Listings, page by page. One that is not complete is an error, never a short list.
//!
//! Pages are counted, so what is deleted on one while the next is asked for moves a name from the next to the one that was
//! read already, and nobody would see it. So a listing of several pages is made twice, and what either saw is there.

use serde::de::DeserializeOwned;
use url::Url;

use crate::clock::Timestamp;
use crate::net::fetch::Answer;

use super::Error;
use super::client::Client;
use super::client::Job;
use super::client::Listed;
use super::client::number;
use super::dialect;
use super::dialect::Dialect;
use super::dialect::State;
use super::ledger::PullListing;

use std::collections::BTreeSet;

/// What a listing does after an item.
enum Then {
    GoOn,
    /// What is behind it is not wanted.
    Stop,
}

/// Every branch of a repository.
pub(super) async fn branches(client: &Client, repository: &str) -> Result<BTreeSet<String>, Error> {
    let job = Job { repository, what: Listed::Branches };
    let dialect = Dialect(client.settings.kind);
    let mut found = BTreeSet::new();
    for _ in 0..2 {
        let take = |branch: dialect::Branch| {
            found.insert(branch.name);
            Ok(Then::GoOn)
        };
        if pages(client, job, dialect.branches(&client.settings.api, repository), take).await? == 1 {
            break;
        }
    }
    if found.is_empty() {
        return Err(client.unusable(job, "lists none, which no repository with images has; nothing is decided from it"));
    }
    Ok(found)
}

/// Every open pull request of a repository, and those that were closed after `since`.
pub(super) async fn pulls(client: &Client, repository: &str, since: Timestamp) -> Result<PullListing, Error> {
    let job = Job { repository, what: Listed::Pulls };
    let (dialect, api) = (Dialect(client.settings.kind), &client.settings.api);
    let mut listing = PullListing::default();
    for _ in 0..2 {
        let take = |item: dialect::Item| {
            let (pull, state) = item.read()?;
            if state == State::Open {
                listing.open.insert(pull.number, pull);
            }
            Ok(Then::GoOn)
        };
        if pages(client, job, dialect.open_pulls(api, repository), take).await? == 1 {
            break;
        }
    }
    // Those that changed last come first: what changes meanwhile comes twice, not never.
    let take = |item: dialect::Item| {
        let updated = item.updated()?;
        if updated < since {
            return Ok(Then::Stop);
        }
        if let (pull, State::Closed(at)) = item.read()? {
            listing.closed.insert(pull.number, (pull, at));
        }
        Ok(Then::GoOn)
    };
    pages(client, job, dialect.closed_pulls(api, repository, since), take).await?;
    Ok(listing)
}

/// Reads page after page; says how many there were.
async fn pages<T: DeserializeOwned + Send>(
    client: &Client,
    job: Job<'_>,
    first: Url,
    mut take: impl FnMut(T) -> Result<Then, String> + Send,
) -> Result<u32, Error> {
    let (mut url, mut seen, most) = (first, 0, client.settings.limits.pages);
    for page in 1..=most {
        let (at, answer) = client.page(url, job).await?;
        let items: Vec<T> = serde_json::from_slice(&answer.body)
            .map_err(|error| client.unusable(job, format!("answered no list of them ({error})")))?;
        let count = items.len();
        seen += count as u64;
        for item in items {
            match take(item).map_err(|problem| client.unusable(job, problem))? {
                Then::GoOn => {}
                Then::Stop => return Ok(page),
            }
        }
        match next(&at, &answer, (count, seen)).map_err(|problem| client.unusable(job, problem))? {
            Some(next) => url = next,
            None => return Ok(page),
        }
    }
    let name = &client.name;
    Err(client.unusable(job, format!("lists them on more than {most} pages; raise forges.{name}.limits.pages")))
}

/// The page behind this one, as the forge says; where it says nothing, there is one behind a full page.
fn next(at: &Url, answer: &Answer, (count, seen): (usize, u64)) -> Result<Option<Url>, String> {
    if let Some(link) = answer.link("next") {
        // The forge may call itself otherwise than we do: what it says of the page stands in the query.
        let query = at.join(link).ok().and_then(|url| url.query().map(str::to_owned));
        let mut url = at.clone();
        url.set_query(query.as_deref());
        return if url == *at || query.is_none() {
            Err("names a page as the next of itself".to_owned())
        } else {
            Ok(Some(url))
        };
    }
    match answer.header("x-next-page").map(str::trim) {
        Some("") => return Ok(None),
        Some(page) => return Ok(Some(with_page(at, page.parse().map_err(|_| "names no next page".to_owned())?))),
        None => {}
    }
    let after = with_page(at, page_of(at) + 1);
    match number(answer, "x-total-count") {
        Some(total) if seen >= total => Ok(None),
        Some(total) if count == 0 => Err(format!("lists {seen} of {total}")),
        Some(_) => Ok(Some(after)),
        // Whoever links pages has none behind this one.
        None if answer.headers.contains_key(http::header::LINK) => Ok(None),
        None => Ok((count >= dialect::per_page(at)).then_some(after)),
    }
}

fn page_of(url: &Url) -> u64 {
    url.query_pairs().find(|(name, _)| name == "page").and_then(|(_, page)| page.parse().ok()).unwrap_or(1)
}

fn with_page(url: &Url, page: u64) -> Url {
    let others: Vec<(String, String)> =
        url.query_pairs().filter(|(name, _)| name != "page").map(|(name, value)| (name.into(), value.into())).collect();
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(others).append_pair("page", &page.to_string());
    url
}

#[cfg(test)]
mod tests;
