//! `larder ls [REF]`: repositories, or the tags of one.

use serde_json::Value;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask;
use super::console;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A repository, or an image in it; without one: every repository
    #[arg(value_name = "REF")]
    reference: Option<String>,
}

pub(super) async fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let server = ask::Server::admin(global)?;
    let Some(reference) = &arguments.reference else {
        let answer = server.get("/api/v1/repositories").await?;
        if console.json {
            console.document(&answer);
        } else {
            print_repositories(&answer, console);
        }
        return Ok(Outcome::Done);
    };
    let (repository, wanted) = split(reference);
    let mut answer = server.get(&format!("/api/v1/tags?{}", ask::query("repository", repository))).await?;
    if let Some(wanted) = wanted {
        keep_only(&mut answer, wanted);
    }
    let found = answer.get("tags").and_then(Value::as_array).is_some_and(|tags| !tags.is_empty());
    if console.json {
        console.document(&answer);
    } else {
        print_tags(&answer, console);
    }
    if wanted.is_some() && !found {
        console.error(&format!("{reference} is not here"));
        return Ok(Outcome::Undone);
    }
    Ok(Outcome::Done)
}

/// The repository of a reference, and the tag or digest after it.
fn split(reference: &str) -> (&str, Option<&str>) {
    if let Some((repository, digest)) = reference.split_once('@') {
        return (repository, Some(digest));
    }
    match reference.rsplit_once(':') {
        // A colon before a slash is a port.
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (reference, None),
    }
}

fn keep_only(answer: &mut Value, wanted: &str) {
    if let Some(tags) = answer.get_mut("tags").and_then(Value::as_array_mut) {
        tags.retain(|tag| text(tag, "tag") == wanted || text(tag, "digest") == wanted);
    }
}

fn print_repositories(answer: &Value, console: &Console) {
    let rows: Vec<[String; 4]> = list(answer, "repositories")
        .map(|one| [text(one, "repository"), text(one, "origin"), text(one, "tags"), size(one, "bytes")])
        .collect();
    if rows.is_empty() {
        console.note("nothing is here yet");
        return;
    }
    console.result(&console::columns(["REPOSITORY", "ORIGIN", "TAGS", "SIZE"], &rows));
}

fn print_tags(answer: &Value, console: &Console) {
    let rows: Vec<[String; 7]> = list(answer, "tags")
        .map(|tag| {
            let fresh = match tag.get("fresh").and_then(Value::as_bool) {
                Some(true) => "fresh",
                Some(false) => "stale",
                None => "",
            };
            let digest: String = text(tag, "digest").chars().take(19).collect();
            let class = text(tag, "class");
            let (size, origin) = (size(tag, "size"), text(tag, "origin"));
            [text(tag, "tag"), digest, class, size, origin, fresh.to_owned(), text(tag, "used_at")]
        })
        .collect();
    if rows.is_empty() {
        console.note(&format!("no tag of {} is here", text(answer, "repository")));
        return;
    }
    console.result(&console::columns(["TAG", "DIGEST", "CLASS", "SIZE", "ORIGIN", "STATE", "LAST USE"], &rows));
}

/// The items of a list in an answer; none where it is missing.
pub(super) fn list<'a>(answer: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A value as text; empty where it is missing.
pub(super) fn text(of: &Value, key: &str) -> String {
    match of.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A number of bytes as people read it; empty where it is missing.
pub(super) fn size(of: &Value, key: &str) -> String {
    of.get(key).and_then(Value::as_u64).map(console::size).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_reference_is_split_at_its_tag_or_digest() {
        for (reference, parts) in [
            ("docker.io/library/alpine", ("docker.io/library/alpine", None)),
            ("docker.io/library/alpine:3.20", ("docker.io/library/alpine", Some("3.20"))),
            ("reg.test:5000/app", ("reg.test:5000/app", None)),
            ("reg.test:5000/app:1", ("reg.test:5000/app", Some("1"))),
            ("alpine@sha256:abc", ("alpine", Some("sha256:abc"))),
        ] {
            assert_eq!(split(reference), parts);
        }
    }
}
