//! Lists that come in pages: tags and referrers.
//!
//! Most registries can be asked for what comes behind a tag (`last`). Some know nothing but their own cursors (Quay's
//! `next_page`, a token in place of the name): these are remembered by the tag that a client goes on from, and one that
//! is not known any more is found again from the front.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use http::header;
use quick_cache::sync::Cache;

use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::RepositoryName;
use crate::oci::Tag;

use super::Ask;
use super::Error;
use super::Fault;
use super::Identity;
use super::Result;
use super::TagPage;
use super::answer;
use super::answer::Next;
use super::answer::Page;
use super::endpoints::Core;
use super::exchange::Reading;
use super::remote::question;

/// Pages that are read for one answer: a list that never ends must not keep a client waiting for ever.
const PAGES_MAX: usize = 64;

/// The most referrers that are read.
const REFERRERS_MAX: usize = 10_000;

/// Cursors that are remembered.
const CURSORS_MAX: usize = 10_000;

/// A longer cursor is not kept.
const CURSOR_BYTES_MAX: usize = 4_096;

/// The upstream's own cursors, by the tag that they go on from.
pub(super) struct Cursors(Cache<(RepositoryName, Identity, Tag), Arc<str>>);

impl Default for Cursors {
    fn default() -> Self {
        Self(Cache::new(CURSORS_MAX))
    }
}

impl fmt::Debug for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cursors").field(&self.0.len()).finish()
    }
}

/// Asks for lists.
pub(super) struct Listing<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) cursors: &'a Cursors,
}

impl Listing<'_> {
    pub(super) async fn tags(&self, ask: &Ask, after: Option<&Tag>, limit: usize) -> Result<Option<TagPage>> {
        let key = |tag: &Tag| (ask.name.clone(), ask.identity, tag.clone());
        let cursor = after.and_then(|after| self.cursors.0.get(&key(after)));
        let mut walk = Walk::new(after, limit, cursor.is_some());
        let mut query = match cursor {
            Some(cursor) => cursor.to_string(),
            None => format!("n={limit}{}", after.map(|tag| format!("&last={tag}")).unwrap_or_default()),
        };
        for _ in 0..PAGES_MAX {
            // docker-registry 2.8 knows no pages: all tags of a repository come at once.
            let reading = Reading::Whole(self.core.limits.manifest_bytes.max(self.core.limits.answer_bytes));
            let mut question = question("tags/list".to_owned(), "tags", reading);
            question.query = Some(query);
            let page = self.core.ask(ask, &question, &|answer| answer::tags(&answer)).await?;
            let Some(page) = page else { return Ok(None) };
            query = match walk.take(page) {
                Step::Next(query) => query,
                Step::Over { page, cursor } => {
                    let cursor = cursor.filter(|cursor| cursor.len() <= CURSOR_BYTES_MAX);
                    if let (Some(last), Some(cursor)) = (page.tags.last(), cursor) {
                        self.cursors.0.insert(key(last), cursor.into());
                    }
                    return Ok(Some(page));
                }
            };
        }
        Err(self.endless(ask, "tags"))
    }

    pub(super) async fn referrers(
        &self,
        ask: &Ask,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>> {
        let mut query = artifact_type.map(|wanted| {
            url::form_urlencoded::Serializer::new(String::new()).append_pair("artifactType", wanted).finish()
        });
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let reading = Reading::Whole(self.core.limits.manifest_bytes);
            let mut question = question(format!("referrers/{digest}"), "referrers", reading);
            question.headers.insert(header::ACCEPT, HeaderValue::from_static(MediaType::OCI_INDEX));
            question.query = query;
            let page = self.core.ask(ask, &question, &|answer| answer::referrers(&answer, artifact_type)).await?;
            let Some(page) = page else { return Ok(None) };
            all.extend(page.rows);
            match page.next {
                None => return Ok(Some(all)),
                Some(next) if all.len() < REFERRERS_MAX => query = Some(next.query),
                Some(_) => break,
            }
        }
        Err(self.endless(ask, "referrers"))
    }

    fn endless(&self, ask: &Ask, what: &str) -> Error {
        Error::new(Fault::Unusable, format!("{}: its list of {what} of {} does not end", self.core.host, ask.name))
    }
}

/// The way to the tags behind one. Pure.
struct Walk<'a> {
    after: Option<&'a Tag>,
    limit: usize,
    /// Whether what comes lies behind `after`.
    is_behind: bool,
    is_first: bool,
    tags: Vec<Tag>,
    /// What came before `after` was seen.
    passed: Vec<Tag>,
}

enum Step {
    /// Ask so.
    Next(String),
    /// That is the page; with the upstream's cursor for what comes behind it.
    Over { page: TagPage, cursor: Option<String> },
}

impl<'a> Walk<'a> {
    fn new(after: Option<&'a Tag>, limit: usize, is_behind: bool) -> Self {
        let is_behind = is_behind || after.is_none();
        Self { after, limit, is_behind, is_first: true, tags: Vec::new(), passed: Vec::new() }
    }

    fn take(&mut self, page: Page<Tag>) -> Step {
        let Page { mut rows, next } = page;
        let is_first = std::mem::replace(&mut self.is_first, false);
        // docker-registry 2.8 sends all of its tags at once, in the order of its folder; clients are promised lexical
        // order.
        if is_first && next.is_none() {
            rows.sort();
        }
        if !self.is_behind {
            let seen = self.after.and_then(|after| rows.iter().position(|tag| tag == after));
            match (seen, &next) {
                // An upstream that does not know `last` sends from the front again.
                (Some(seen), _) => drop(rows.drain(..=seen)),
                (None, Some(next)) if !next.is_by_name => {
                    self.passed.append(&mut rows);
                    return Step::Next(next.query.clone());
                }
                // The tag is gone: what would come behind it does.
                (None, None) if !is_first => {
                    self.passed.append(&mut rows);
                    rows = std::mem::take(&mut self.passed);
                    rows.retain(|tag| self.after.is_none_or(|after| tag > after));
                    rows.sort();
                }
                (None, _) => {}
            }
            self.is_behind = true;
        }
        self.tags.append(&mut rows);
        match next {
            Some(next) if self.tags.is_empty() => Step::Next(next.query),
            next => self.over(next),
        }
    }

    fn over(&mut self, next: Option<Next>) -> Step {
        let mut tags = std::mem::take(&mut self.tags);
        let is_cut = tags.len() > self.limit;
        tags.truncate(self.limit);
        let more = is_cut || next.is_some();
        let cursor = next.filter(|next| !is_cut && !next.is_by_name).map(|next| next.query);
        Step::Over { page: TagPage { tags, more }, cursor }
    }
}
