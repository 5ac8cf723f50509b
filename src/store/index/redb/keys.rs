//! Keys of rows. Every key begins with what lookups know, so that a lookup costs the same however many rows there are.

use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store::index::Error;
use crate::store::names::Name;
use crate::store::tree::BlobKey;

/// Divides a repository's name from what follows; no name has it.
const END: u8 = 0;

fn damaged(what: &str) -> Error {
    Error::Damaged(format!("a key is no {what}"))
}

/// The first key past all those that begin with `prefix`.
pub(super) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return end;
        }
        end.pop();
    }
    end
}

pub(super) fn repository(of: &RepositoryKey) -> Vec<u8> {
    let mut key = Vec::with_capacity(128);
    key.extend_from_slice(of.registry.as_str().as_bytes());
    key.push(b'/');
    key.extend_from_slice(of.name.as_str().as_bytes());
    key.push(END);
    key
}

fn push_digest(key: &mut Vec<u8>, digest: &Digest) {
    key.push(match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    });
    key.extend_from_slice(digest.value());
}

pub(super) fn digest(digest: &Digest) -> Vec<u8> {
    let mut key = Vec::with_capacity(72);
    push_digest(&mut key, digest);
    key
}

pub(super) fn tag(of: &RepositoryKey, tag: &Tag) -> Vec<u8> {
    let mut key = repository(of);
    key.extend_from_slice(tag.as_str().as_bytes());
    key
}

pub(super) fn link(of: &RepositoryKey, digest: &Digest) -> Vec<u8> {
    let mut key = repository(of);
    push_digest(&mut key, digest);
    key
}

/// A pair of digests in a repository: child and parent, subject and referrer.
pub(super) fn pair(of: &RepositoryKey, first: &Digest, second: &Digest) -> Vec<u8> {
    let mut key = link(of, first);
    push_digest(&mut key, second);
    key
}

/// A tag under what it means.
pub(super) fn meaning(of: &RepositoryKey, digest: &Digest, tag: &Tag) -> Vec<u8> {
    let mut key = link(of, digest);
    key.extend_from_slice(tag.as_str().as_bytes());
    key
}

pub(super) fn blob(key: &BlobKey) -> Vec<u8> {
    let mut bytes = digest(&key.digest);
    bytes.extend_from_slice(&key.generation.to_be_bytes());
    bytes
}

pub(super) fn holder(key: &BlobKey, of: &RepositoryKey) -> Vec<u8> {
    let mut bytes = blob(key);
    bytes.extend_from_slice(&repository(of));
    bytes
}

pub(super) fn name(of: &RepositoryKey, name: &Name) -> Vec<u8> {
    let mut key = repository(of);
    match name {
        Name::Tag(tag) => {
            key.push(b't');
            key.extend_from_slice(tag.as_str().as_bytes());
        }
        Name::Digest(digest) => {
            key.push(b'd');
            push_digest(&mut key, digest);
        }
    }
    key
}

/// Reads the digest that `key` begins with, and gives what follows.
fn take_digest(key: &[u8]) -> Result<(Digest, &[u8]), Error> {
    match key.split_first() {
        Some((1, rest)) => {
            let (value, rest) = rest.split_first_chunk().ok_or_else(|| damaged("digest"))?;
            Ok((Digest::Sha256(*value), rest))
        }
        Some((2, rest)) => {
            let (value, rest) = rest.split_first_chunk().ok_or_else(|| damaged("digest"))?;
            Ok((Digest::Sha512(*value), rest))
        }
        _ => Err(damaged("digest")),
    }
}

/// The second digest of a pair whose first has the length of `first`.
pub(super) fn second_of_pair(key: &[u8], of: &RepositoryKey) -> Result<Digest, Error> {
    let (_, rest) = take_repository(key, Some(of))?;
    let (_, rest) = take_digest(rest)?;
    Ok(take_digest(rest)?.0)
}

/// Reads the repository that `key` begins with, and gives what follows. `known` saves parsing it.
fn take_repository<'a>(key: &'a [u8], known: Option<&RepositoryKey>) -> Result<(RepositoryKey, &'a [u8]), Error> {
    let end = key.iter().position(|byte| *byte == END).ok_or_else(|| damaged("repository"))?;
    let (path, rest) = key.split_at(end);
    let of = match known {
        Some(of) => of.clone(),
        None => std::str::from_utf8(path)
            .ok()
            .and_then(|path| RepositoryKey::from_path(path).ok())
            .ok_or_else(|| damaged("repository"))?,
    };
    Ok((of, rest.split_first().map_or(rest, |(_, rest)| rest)))
}

/// The tag of a meaning.
pub(super) fn read_meaning(key: &[u8], of: &RepositoryKey) -> Result<Tag, Error> {
    let (_, rest) = take_repository(key, Some(of))?;
    let (_, rest) = take_digest(rest)?;
    std::str::from_utf8(rest).ok().and_then(|tag| tag.parse().ok()).ok_or_else(|| damaged("tag"))
}

pub(super) fn read_repository(key: &[u8]) -> Result<RepositoryKey, Error> {
    Ok(take_repository(key, None)?.0)
}

pub(super) fn read_blob(key: &[u8]) -> Result<BlobKey, Error> {
    let (digest, rest) = take_digest(key)?;
    let (generation, _) = rest.split_first_chunk().ok_or_else(|| damaged("generation"))?;
    Ok(BlobKey { digest, generation: u32::from_be_bytes(*generation) })
}

pub(super) fn read_holder(key: &[u8]) -> Result<RepositoryKey, Error> {
    let (_, rest) = take_digest(key)?;
    let (_, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("generation"))?;
    read_repository(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> RepositoryKey {
        RepositoryKey::from_path(path).unwrap()
    }

    #[test]
    fn a_repository_is_not_among_the_keys_of_one_that_begins_like_it() {
        let prefix = repository(&of("docker.io/a"));
        let end = after(&prefix);
        let key = tag(&of("docker.io/a-b"), &"x".parse().unwrap());
        assert!(!(prefix.as_slice() <= key.as_slice() && key < end));
        let key = tag(&of("docker.io/a"), &"x".parse().unwrap());
        assert!(prefix <= key && key < end);
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let repository_key = of("_hosted/cache/app");
        let (a, b) = (Digest::of(b"a"), Digest::of_with(Algorithm::Sha512, b"b"));
        let key = BlobKey { digest: b, generation: 7 };
        assert_eq!(read_blob(&blob(&key)).unwrap(), key);
        assert_eq!(read_holder(&holder(&key, &repository_key)).unwrap(), repository_key);
        assert_eq!(second_of_pair(&pair(&repository_key, &a, &b), &repository_key).unwrap(), b);
        assert_eq!(read_repository(&link(&repository_key, &a)).unwrap(), repository_key);
        let tag: Tag = "v1.2".parse().unwrap();
        assert_eq!(read_meaning(&meaning(&repository_key, &a, &tag), &repository_key).unwrap(), tag);
    }

    #[test]
    fn damaged_keys_are_errors() {
        for key in [&[][..], &[0], &[1, 2, 3], &[9; 40], b"docker.io/a"] {
            assert!(read_blob(key).is_err());
            assert!(read_holder(key).is_err());
        }
    }
}
