//! The query of a request: what of it is known; the rest is passed over.

use http::Method;

use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::Tag;

use super::Begin;
use super::Problem;
use super::Upload;
use super::last_tag;
use super::only;

/// How many pairs of a query are looked at.
const PAIRS_MAX: usize = 32;

/// How many tags one PUT may give a manifest; the specification wants ten at least.
const TAGS_MAX: usize = 16;

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many, where the client says so; `n=0` asks for none.
    pub count: Option<u64>,
    /// Those after this one.
    pub after: Option<Tag>,
}

/// The known values; the first of each counts.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) ns: Option<String>,
    pub(super) artifact_type: Option<String>,
    n: Option<String>,
    last: Option<String>,
    digest: Option<String>,
    digest_algorithm: Option<String>,
    mount: Option<String>,
    from: Option<String>,
    tags: Vec<String>,
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let mut found = Self::default();
        if query.is_empty() {
            return Ok(found);
        }
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()).take(PAIRS_MAX) {
            let slot = match &*name {
                "ns" => &mut found.ns,
                "artifactType" => &mut found.artifact_type,
                "n" => &mut found.n,
                "last" => &mut found.last,
                "digest" => &mut found.digest,
                "digest-algorithm" => &mut found.digest_algorithm,
                "mount" => &mut found.mount,
                "from" => &mut found.from,
                "tag" => {
                    found.tags.push(value.into_owned());
                    continue;
                }
                _ => continue,
            };
            if slot.is_none() {
                *slot = Some(value.into_owned());
            }
        }
        // A host is short and plain; anything else is no name of a registry.
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_' | b'[' | b']' | b'/');
        if found.ns.as_ref().is_some_and(|ns| ns.len() > 512 || !ns.bytes().all(plain)) {
            return Err(Problem::Query("ns"));
        }
        if found.artifact_type.as_ref().is_some_and(|kind| kind.len() > 512 || kind.chars().any(char::is_control)) {
            return Err(Problem::Query("artifactType"));
        }
        Ok(found)
    }

    /// What is to be done with an upload; `session` is empty where one is to be begun.
    pub(super) fn upload(self, method: &Method, session: &str) -> Result<Upload, Problem> {
        if session.is_empty() {
            only(method, "POST")?;
            return self.begin().map(Upload::Begin);
        }
        only(method, "GET, PATCH, PUT, DELETE")?;
        let session = session.to_owned();
        Ok(match *method {
            Method::PATCH => Upload::Append { session },
            Method::PUT => Upload::Finish { session, digest: self.digest()?.ok_or(Problem::Digest)? },
            Method::DELETE => Upload::Cancel { session },
            _ => Upload::Status { session },
        })
    }

    fn begin(self) -> Result<Begin, Problem> {
        let digest = self.digest()?;
        let algorithm = match self.digest_algorithm.as_deref() {
            None | Some("") => None,
            Some("sha256") => Some(Algorithm::Sha256),
            Some("sha512") => Some(Algorithm::Sha512),
            Some(_) => return Err(Problem::Digest),
        };
        let mount = self.mount.as_deref().filter(|mount| !mount.is_empty());
        let mount = mount.map(str::parse).transpose().map_err(|_| Problem::Digest)?;
        let from = self.from.filter(|from| !from.is_empty());
        Ok(Begin { mount, from, digest, algorithm })
    }

    fn digest(&self) -> Result<Option<Digest>, Problem> {
        self.digest.as_deref().map(str::parse).transpose().map_err(|_| Problem::Digest)
    }

    /// The tags that a PUT gives a manifest besides what its path names.
    pub(super) fn tags(&self, reference: &Reference) -> Result<Vec<Tag>, Problem> {
        if self.tags.len() > TAGS_MAX {
            return Err(Problem::TooLong);
        }
        // A tag in the path is the one that is meant; the specification gives the query a meaning by digest only.
        if matches!(reference, Reference::Tag(_)) {
            return Ok(Vec::new());
        }
        self.tags.iter().map(|tag| tag.parse().map_err(|_| Problem::Tag)).collect()
    }

    /// The digest after which a page of referrers begins.
    pub(super) fn after_digest(&self) -> Result<Option<Digest>, Problem> {
        let last = self.last.as_deref().filter(|last| !last.is_empty());
        last.map(str::parse).transpose().map_err(|_| Problem::Query("last"))
    }

    /// The page of tags that is asked for. A count beyond every number is a large count.
    pub(super) fn page(&self) -> Result<Page, Problem> {
        let count = match self.n.as_deref() {
            None | Some("") => None,
            Some(n) if n.bytes().all(|b| b.is_ascii_digit()) => Some(n.parse().unwrap_or(u64::MAX)),
            Some(_) => return Err(Problem::Query("n")),
        };
        Ok(Page { count, after: last_tag(self.last.as_deref().unwrap_or_default())? })
    }
}

/// The first value of a name.
pub(super) fn value(query: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes()).take(PAIRS_MAX);
    pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}

/// Whether a client that asks for a token names repositories and wants nothing but to pull them
/// (`scope=repository:<name>:pull`). Who logs in names none.
pub(super) fn only_pulls(query: &str) -> bool {
    let pairs = url::form_urlencoded::parse(query.as_bytes()).take(PAIRS_MAX).filter(|(key, _)| key == "scope");
    let mut wanted = pairs.flat_map(|(_, scopes)| scopes.split(' ').map(str::to_owned).collect::<Vec<_>>()).peekable();
    wanted.peek().is_some() && wanted.all(|scope| scope.starts_with("repository:") && scope.ends_with(":pull"))
}
