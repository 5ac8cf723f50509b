//! Names of images as people write them: `alpine`, `ghcr.io/acme/app:1`, `alpine@sha256:…`.

use crate::oci::Reference;
use crate::oci::RepositoryKey;

use super::NameProblem;
use super::Repositories;
use super::Spelling;

/// A repository, and what of it, where that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The repository.
    pub repository: RepositoryKey,
    /// The tag or digest.
    pub reference: Option<Reference>,
}

/// Why a text names no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The repository's name is none, or its registry is not configured.
    #[error(transparent)]
    Name(#[from] NameProblem),
    /// What follows the name is neither a tag nor a digest.
    #[error("neither a tag nor a digest")]
    Reference(#[from] crate::oci::reference::ReferenceError),
}

impl Image {
    /// Reads a name. Where it has a tag and a digest, the digest counts, as it does for every client.
    pub fn parse(text: &str, repositories: &Repositories) -> Result<Self, ImageError> {
        let (name, reference) = split(text);
        let reference = reference.map(str::parse).transpose()?;
        let spelling = Spelling { prefix: None, path: name.to_owned(), ns: None };
        Ok(Self { repository: repositories.find(&spelling)?, reference })
    }

    /// The same, with the tag that clients mean where none is said.
    pub fn reference_or_latest(&self) -> Reference {
        // The word is a tag.
        self.reference.clone().unwrap_or_else(|| Reference::Tag(crate::oci::Tag::latest()))
    }
}

/// The name, and the tag or digest behind it. A colon before a slash is a port.
fn split(text: &str) -> (&str, Option<&str>) {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, digest.or(Some(tag))),
        _ => (rest, digest),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_name_is_split_from_its_tag_or_digest() {
        for (text, want) in [
            ("alpine", ("alpine", None)),
            ("alpine:3", ("alpine", Some("3"))),
            ("localhost:5000/app", ("localhost:5000/app", None)),
            ("localhost:5000/app:1", ("localhost:5000/app", Some("1"))),
            ("alpine@sha256:ab", ("alpine", Some("sha256:ab"))),
            ("a.b/c:1@sha256:ab", ("a.b/c", Some("sha256:ab"))),
        ] {
            assert_eq!(split(text), want, "{text}");
        }
    }
}
