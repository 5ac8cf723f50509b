//! What is in use, as a cluster or a script lists it: one reference a line. A file that can't be relied on keeps everything.

use std::io::Read as _;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::duration;
use crate::config::retention::RefsFile;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::RegistryName;
use crate::oci::RepositoryKey;
use crate::repository::NameProblem;
use crate::repository::Repositories;
use crate::repository::Spelling;

use super::plan::Protections;

/// The largest list, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What stands in front of references in the status of a pod.
const SCHEMES: [&str; 2] = ["docker-pullable://", "docker://"];

/// Reads a list into what is protected; why it can't be relied on, where that is so. It blocks.
pub(super) fn read(
    file: &RefsFile,
    now: Timestamp,
    repositories: &Repositories,
    into: &mut Protections,
) -> Result<(), String> {
    let path = file.path.display();
    let (text, age) = contents(file, now).map_err(|error| format!("{path}, a list of what is in use, {error}"))?;
    if age > file.max_age {
        return Err(format!(
            "{path}, a list of what is in use, is {} old, and may be {}",
            duration::show(Duration::from_secs(age.as_secs())),
            duration::show(file.max_age)
        ));
    }
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            let wrong = || format!("{path}, a list of what is in use, has no reference in line {}: {line}", number + 1);
            add(line, repositories, into).ok_or_else(wrong)?;
        }
    }
    Ok(())
}

fn contents(file: &RefsFile, now: Timestamp) -> Result<(String, Duration), String> {
    let opened = std::fs::File::open(&file.path).map_err(|error| format!("can't be read: {error}"))?;
    let written = opened.metadata().and_then(|seen| seen.modified()).map_err(|error| format!("has no age: {error}"))?;
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let written = Timestamp(u64::try_from(written.as_millis()).unwrap_or(0));
    let mut text = String::new();
    let read = opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| format!("can't be read: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err("has more than 64 MiB".to_owned());
    }
    Ok((text, now.since(written)))
}

/// Adds what a line names; none where it names nothing.
fn add(line: &str, repositories: &Repositories, into: &mut Protections) -> Option<()> {
    let line = SCHEMES.iter().find_map(|scheme| line.strip_prefix(scheme)).unwrap_or(line);
    let (rest, digest) = match line.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().ok()?)),
        None => (line, line.parse::<Digest>().ok()),
    };
    into.digests.extend(digest);
    if digest.is_some() && rest == line {
        return Some(());
    }
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let reference: Reference = tag.unwrap_or("latest").parse().ok()?;
    // A digest decides what is used, whatever tag stands beside it; a tag that stands there is in use as a name.
    if let (Reference::Tag(tag), true) = (reference, tag.is_some() || digest.is_none()) {
        for repository in repositories_of(&without_views(name), repositories)? {
            into.tags.insert((repository, tag.clone()));
        }
    }
    Some(())
}

/// The repositories that a name may mean: what it means here; and where its host is not known here, a hosted one of that
/// name, because a cluster may know this server by another.
fn repositories_of(name: &str, repositories: &Repositories) -> Option<Vec<RepositoryKey>> {
    let spelling = Spelling { prefix: None, path: name.to_owned(), ns: None };
    match repositories.find(&spelling) {
        Ok(found) => Some(vec![found]),
        Err(NameProblem::Unknown) => {
            let (_, below) = name.split_once('/')?;
            let hosted = below.parse().ok().map(|name| RepositoryKey::new(RegistryName::hosted(), name));
            Some(hosted.into_iter().collect())
        }
        Err(NameProblem::Invalid) => None,
    }
}

/// The name without `run/<id>/` and `t/<token>/`, at its beginning or behind its host.
fn without_views(name: &str) -> String {
    let mut segments: Vec<&str> = name.split('/').collect();
    for reserved in ["t", "run"] {
        let at = usize::from(segments.first().is_some_and(|first| first.contains(['.', ':']) || *first == "localhost"));
        if segments.get(at) == Some(&reserved) && segments.len() > at + 2 {
            segments.drain(at..at + 2);
        }
    }
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::without_views;

    #[test]
    fn what_a_run_uses_is_what_it_is_without_the_run() {
        for (name, want) in [
            ("larder.example.com/run/42/cache/app", "larder.example.com/cache/app"),
            ("run/42/cache/app", "cache/app"),
            ("localhost:5000/t/secret/run/42/cache/app", "localhost:5000/cache/app"),
            ("cache/run/app", "cache/run/app"),
            ("run/app", "run/app"),
        ] {
            assert_eq!(without_views(name), want);
        }
    }
}
