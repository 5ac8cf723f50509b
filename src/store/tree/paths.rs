//! How names are written as paths, and read from them. Pure.
//!
//! Only names that were parsed get here: none has a part that is empty, `.` or `..`, or begins with `_`.

use std::path::Path;

use crate::oci::Digest;
use crate::oci::RegistryName;
use crate::oci::RepositoryKey;

use super::BlobKey;
use super::RecordPath;
use super::StateId;

/// Stands between a host and its port: a `:` is none of the letters that every file system and every tool takes, and no
/// host has a `_`.
const BEFORE_PORT: &str = "_";

/// The folder of what is no repository's.
pub(super) const STATE: &str = "state";

/// The path of a record, from the store's folder.
pub(super) fn of_record(path: &RecordPath) -> String {
    match path {
        RecordPath::Link(of, digest) => {
            format!("repositories/{}/_links/{}/{}", of_repository(of), digest.algorithm().as_str(), digest.hex())
        }
        RecordPath::Tag(of, tag) => format!("repositories/{}/_tags/{tag}", of_repository(of)),
        RecordPath::State(kind, id) => format!("{STATE}/{kind}/{}", id.as_str()),
    }
}

/// The folder of a repository, below `repositories`.
fn of_repository(of: &RepositoryKey) -> String {
    format!("{}/{}", of.registry.as_str().replace(':', BEFORE_PORT), of.name)
}

fn repository_of(parts: &[&str]) -> Option<RepositoryKey> {
    let (registry, name) = parts.split_first()?;
    let hosted = RegistryName::hosted();
    let registry =
        if *registry == hosted.as_str() { hosted } else { registry.replace(BEFORE_PORT, ":").parse().ok()? };
    Some(RepositoryKey::new(registry, name.join("/").parse().ok()?))
}

/// What a file below `repositories` is, by its path from there.
pub(super) fn record_of(path: &Path) -> Option<RecordPath> {
    let parts: Vec<&str> = path.iter().map(|p| p.to_str()).collect::<Option<_>>()?;
    match parts.as_slice() {
        [name @ .., "_links", algorithm, hex] => {
            let digest = format!("{algorithm}:{hex}").parse().ok()?;
            Some(RecordPath::Link(repository_of(name)?, digest))
        }
        [name @ .., "_tags", tag] => Some(RecordPath::Tag(repository_of(name)?, tag.parse().ok()?)),
        _ => None,
    }
}

/// What a record is called that is no repository's, by its path from the folder of its kind.
pub(super) fn state_of(path: &Path) -> Option<StateId> {
    // Folders in there are none of ours, nor is what is in them.
    path.to_str()?.parse().ok()
}

/// What a file below `blobs` is, by its name.
pub(super) fn blob_of(path: &Path) -> Option<BlobKey> {
    let (hex, generation) = path.file_name()?.to_str()?.split_once('.')?;
    let algorithm = path.parent()?.parent()?.file_name()?.to_str()?;
    let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    Some(BlobKey { digest, generation: generation.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_read_as_it_was_written_and_no_two_share_a_folder() {
        let mut seen = std::collections::HashSet::new();
        for path in [
            "docker.io/library/alpine",
            "_hosted/cache/app",
            "localhost:5000/a",
            "localhost/5000/a",
            "127.0.0.1:5000/a/b__c/d",
        ] {
            let of = RepositoryKey::from_path(path).unwrap();
            let folder = of_repository(&of);
            let parts: Vec<_> = folder.split('/').collect();
            assert_eq!(repository_of(&parts), Some(of));
            assert!(!folder.contains(':') && seen.insert(folder));
        }
    }

    #[test]
    fn other_files_are_none_of_ours() {
        for path in ["docker.io/a/x", "docker.io/a/_tags/..", "docker.io/a/_links/sha256/x", "_tags/x", "a/_x/b"] {
            assert_eq!(record_of(Path::new(path)), None, "{path}");
        }
        for path in ["sha256/ab/abc", "sha256/ab/abc.0", "x", "sha256/ab/.0"] {
            assert_eq!(blob_of(Path::new(path)), None, "{path}");
        }
    }
}
