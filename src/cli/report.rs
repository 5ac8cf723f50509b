//! `larder report`: what storage comes to and what it saved.

use serde_json::Value;

use crate::config::retention::Money;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask;
use super::console::columns;
use super::console::size;
use super::ls::list;
use super::ls::size as size_of;
use super::ls::text;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Tell the branches and tags of this repository
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// How far back pulls are counted, like 7d or 12h
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    since: String,
}

pub(super) async fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let server = ask::Server::admin(global)?;
    let mut path = format!("/api/v1/report?{}", ask::query("since", &arguments.since));
    if let Some(repository) = &arguments.repository {
        path = format!("{path}&{}", ask::query("repository", repository));
    }
    let answer = server.get(&path).await?;
    if console.json {
        console.document(&answer);
    } else {
        print(&answer, arguments, console);
    }
    if let Some(repository) = &arguments.repository
        && list(&answer, "repositories").next().is_none()
    {
        console.error(&format!("{repository} is not here, and nobody asked for it"));
        return Ok(Outcome::Undone);
    }
    Ok(Outcome::Done)
}

fn print(answer: &Value, arguments: &Arguments, console: &Console) {
    let rows: Vec<[String; 9]> = list(answer, "repositories")
        .map(|one| {
            let [bytes, alone, month] = sizes(one);
            let (pulls, saved) = (text(one, "pulls"), text(one, "saved_pulls"));
            let (name, tags, used) = (text(one, "repository"), text(one, "tag_count"), text(one, "used_at"));
            [name, tags, bytes, alone, month, pulls, saved, size_of(one, "saved_bytes"), used]
        })
        .collect();
    if !rows.is_empty() {
        let head = ["REPOSITORY", "TAGS", "SIZE", "ALONE", "A MONTH", "PULLS", "SPARED", "NOT FETCHED", "LAST USE"];
        console.result(&columns(head, &rows));
    }
    for one in list(answer, "repositories") {
        print_parts(one, console);
    }
    console.result(&summary(answer, &arguments.since));
    let known = text(answer, "known_since");
    if known.is_empty() {
        console.note("no pull is known yet");
    } else if known > text(answer, "since") {
        console.note(&format!("pulls are known since {known}"));
    }
    if answer.get("more").and_then(Value::as_bool) == Some(true) {
        console.note("there are more repositories, which take less");
    }
}

/// The branches and tags of one, where they were asked for.
fn print_parts(one: &Value, console: &Console) {
    let branches: Vec<[String; 6]> = list(one, "branches")
        .map(|branch| {
            let [bytes, alone, month] = sizes(branch);
            [text(branch, "branch"), text(branch, "tag_count"), bytes, alone, month, text(branch, "used_at")]
        })
        .collect();
    if !branches.is_empty() {
        console.result(&columns(["BRANCH", "TAGS", "SIZE", "ALONE", "A MONTH", "LAST USE"], &branches));
    }
    let tags: Vec<[String; 7]> = list(one, "tags")
        .map(|tag| {
            let [bytes, alone, month] = sizes(tag);
            let (branch, pushed, used) = (text(tag, "branch"), text(tag, "pushed_at"), text(tag, "used_at"));
            [text(tag, "tag"), branch, bytes, alone, month, pushed, used]
        })
        .collect();
    if !tags.is_empty() {
        console.result(&columns(["TAG", "BRANCH", "SIZE", "ALONE", "A MONTH", "PUSHED", "LAST USE"], &tags));
    }
}

fn sizes(of: &Value) -> [String; 3] {
    [size_of(of, "bytes"), size_of(of, "exclusive_bytes"), money(of, "month_micros").unwrap_or_default()]
}

/// An amount; none where there is no price.
fn money(of: &Value, key: &str) -> Option<String> {
    of.get(key).and_then(Value::as_u64).map(|micros| Money(micros).to_string())
}

/// All of it in sentences.
fn summary(answer: &Value, since: &str) -> String {
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or_default();
    let month = money(answer, "month_micros").map(|money| format!(", which costs {money} a month")).unwrap_or_default();
    let saved = money(answer, "saved_micros").map(|money| format!(" ({money})")).unwrap_or_default();
    let pruned = match number("pruned") {
        0 => String::new(),
        pruned => format!("\n{pruned} deleted by policies, which freed {}", size(number("freed_bytes"))),
    };
    format!(
        "{} are kept, {} of them from upstreams{month}\nin {since}: {} pulls, {} of them spared an upstream; {} sent, {} of them \
         did not leave an upstream for it{saved}{pruned}",
        size(number("bytes")),
        size(number("proxied_bytes")),
        number("pulls"),
        number("saved_pulls"),
        size(number("sent_bytes")),
        size(number("saved_bytes")),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::summary;

    #[test]
    fn all_of_it_is_told_in_sentences() {
        let answer = json!({
            "bytes": 3_u64 << 30, "proxied_bytes": 2_u64 << 30, "pulls": 12, "saved_pulls": 9, "sent_bytes": 5_u64 << 30,
            "saved_bytes": 4_u64 << 30, "month_micros": 300_000, "saved_micros": 360_000, "pruned": 7, "freed_bytes": 2048,
        });
        assert_eq!(
            summary(&answer, "30d"),
            "3.0 GiB are kept, 2.0 GiB of them from upstreams, which costs 0.30 a month\nin 30d: 12 pulls, 9 of them spared an \
             upstream; 5.0 GiB sent, 4.0 GiB of them did not leave an upstream for it (0.36)\n7 deleted by policies, which freed 2.0 KiB"
        );
        let nothing = summary(&json!({ "month_micros": null }), "7d");
        assert!(nothing.starts_with("0 B are kept, 0 B of them from upstreams\nin 7d: 0 pulls"), "{nothing}");
    }
}
