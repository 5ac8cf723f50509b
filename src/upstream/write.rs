//! What a registry is asked to manage it: its repositories, and the deletion of tags.
//!
//! A tag is deleted by its name. There is no call here that deletes by digest: it would take every other tag with it.

use bytes::Bytes;
use serde::Deserialize;

use crate::config::Secret;
use crate::net::fetch::link;
use crate::oci::RepositoryName;
use crate::oci::Tag;

use super::Ask;
use super::Error;
use super::Fault;
use super::Remote;
use super::Result;
use super::credential::Login;
use super::exchange::Answer;
use super::exchange::Reading;
use super::exchange::Right;
use super::remote::question;

/// How a tag is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal<'a> {
    /// `DELETE /v2/<name>/manifests/<tag>` (distribution-spec, "Deleting tags").
    Tag(&'a Tag),
    /// `DELETE /v2/<name>/tags/reference/<tag>`, as GitLab's registries had it before the specification did.
    TagReference(&'a Tag),
}

impl Removal<'_> {
    /// The path below `/v2/<name>/`.
    pub fn path(&self) -> String {
        match self {
            Self::Tag(tag) => format!("manifests/{tag}"),
            Self::TagReference(tag) => format!("tags/reference/{tag}"),
        }
    }
}

/// A document of an API that a registry has beside the specification's, one page of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The body, whole.
    pub bytes: Bytes,
    /// The query that asks for the next page, where there is one.
    pub next: Option<String>,
}

impl Document {
    fn of(answer: &Answer) -> Self {
        // Of the link only its query is taken: so it leads nowhere else.
        let next = link(&answer.headers, "next").map(|target| {
            let target = target.split('#').next().unwrap_or_default();
            target.split_once('?').map_or("", |(_, query)| query).to_owned()
        });
        Self { bytes: answer.bytes(), next }
    }
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Remote {
    /// Deletes a tag, once: whether it did, or the registry answered 404.
    ///
    /// # Errors
    /// [`Fault::Status`] with 400 or 405 where the registry can't delete tags. After one that is no answer of the registry's
    /// the tag may be deleted or not.
    pub async fn delete(&self, ask: &Ask, removal: Removal<'_>) -> Result<bool> {
        let mut question = question(removal.path(), "delete", Reading::Nothing);
        (question.method, question.right) = (http::Method::DELETE, Right::Delete);
        Ok(self.core.ask(ask, &question, &|_| Ok(())).await?.is_some())
    }

    /// A page of the registry's list of repositories; `Ok(None)` where it has none.
    ///
    /// What is no name can't be pulled and is left out. `query` is that of the page before, or `n=…`.
    ///
    /// # Errors
    /// It could not be asked, or its answer is no list.
    pub async fn catalog(&self, ask: &Ask, query: String) -> Result<Option<(Vec<RepositoryName>, Option<String>)>> {
        let mut question = question("_catalog".to_owned(), "catalog", self.listing_bytes());
        (question.right, question.query) = (Right::Catalog, Some(query));
        let page = match self.core.ask(ask, &question, &|answer| Ok(Document::of(&answer))).await {
            Err(error) if error.fault() == Fault::Status(405) => return Ok(None),
            page => page?,
        };
        let Some(page) = page else { return Ok(None) };
        let list: Catalog = serde_json::from_slice(&page.bytes).map_err(|error| {
            Error::new(Fault::Unusable, format!("{}: its list of repositories is none", self.core.host))
                .caused_by(error)
        })?;
        let names = list.repositories.unwrap_or_default();
        Ok(Some((names.iter().filter_map(|name| name.parse().ok()).collect(), page.next)))
    }

    /// A document of an API of the registry's own, which takes the same tokens; `Ok(None)` where there is none.
    ///
    /// # Errors
    /// It could not be asked.
    pub async fn document(&self, ask: &Ask, path: String, query: String) -> Result<Option<Document>> {
        let mut question = question(path, "list", self.listing_bytes());
        (question.right, question.query) = (Right::Beside, Some(query));
        self.core.ask(ask, &question, &|answer| Ok(Document::of(&answer))).await
    }

    /// User and password as they are configured, or as the docker configuration or helper has them now; the user of an
    /// identity token is `<token>`.
    ///
    /// # Errors
    /// They could not be had.
    pub async fn login(&self) -> Result<Option<(String, Secret)>> {
        Ok(self.core.credentials.get().await?.map(|login| match &*login {
            Login::Password { username, password } => (username.clone(), password.clone()),
            Login::Identity(token) => ("<token>".to_owned(), token.clone()),
        }))
    }

    /// The first endpoint, with a slash at its end.
    pub fn base(&self) -> String {
        let first = self.core.endpoints.first().map(|endpoint| endpoint.base(""));
        first.map(String::from).unwrap_or_default()
    }

    fn listing_bytes(&self) -> Reading {
        Reading::Whole(self.core.limits.manifest_bytes.max(self.core.limits.answer_bytes))
    }
}
