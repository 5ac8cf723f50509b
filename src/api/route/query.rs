//! The query of a request: what of it is known; the rest is passed over.

use crate::oci::Tag;

use super::Problem;
use super::last_tag;

/// How many pairs of a query are looked at.
const PAIRS_MAX: usize = 32;

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
