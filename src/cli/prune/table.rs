//! A plan for people: what goes, what repositories and branches come to, what keeps the rest, and what deserves a look.

use serde_json::Value;

use crate::cli::Console;
use crate::cli::console;
use crate::cli::ls::list;
use crate::cli::ls::size;
use crate::cli::ls::text;
use crate::config::retention::Money;

/// The most branches that are shown; all of them are in the JSON.
const BRANCHES_SHOWN: usize = 20;
/// Characters of a digest that are shown.
const DIGEST_SHOWN: usize = 19;

/// What a thing of a plan is called: `cache/app:main`, or with its digest where it has no tag.
pub(super) fn name(of: &Value) -> String {
    match of.get("tag").and_then(Value::as_str) {
        Some(tag) => format!("{}:{tag}", text(of, "repository")),
        None => format!("{}@{}", text(of, "repository"), text(of, "digest")),
    }
}

pub(super) fn print(plan: &Value, console: &Console) {
    deletes(plan, console);
    branches(plan, console);
    repositories(plan, console);
    stays(plan, console);
    console.result(&sum(plan));
    for refused in list(plan, "refused") {
        console.warning(&format!("{} can't be deleted: {}", name(refused), text(refused, "why")));
    }
    for part in list(plan, "policies").filter(|part| part.get("exceeded").and_then(Value::as_bool) == Some(true)) {
        let most = part.get("at_most").and_then(Value::as_array).cloned().unwrap_or_default();
        let most: Vec<String> = most.iter().map(Value::to_string).collect();
        console.warning(&format!(
            "the policy {} would delete {} of {}, and its at_most lets {} go: nothing would be deleted, unless --at-most says so",
            text(part, "policy"),
            text(part, "deletes"),
            text(part, "of"),
            match most.as_slice() {
                [deletes, share] => format!("{deletes}, and {share}% of all,"),
                _ => "less".to_owned(),
            },
        ));
    }
    for blocked in list(plan, "blocked").filter_map(Value::as_str) {
        console.warning(&format!("nothing would be deleted now: {blocked}"));
    }
    for remark in list(plan, "remarks").filter_map(Value::as_str) {
        console.warning(remark);
    }
}

fn deletes(plan: &Value, console: &Console) {
    let row = |one: &Value| {
        let tag = one.get("tag").and_then(Value::as_str).unwrap_or("(untagged)");
        let along = one.get("along").and_then(Value::as_bool) == Some(true);
        let policy = if along { format!("{}, along", text(one, "policy")) } else { text(one, "policy") };
        let digest: String = text(one, "digest").chars().take(DIGEST_SHOWN).collect();
        let (repository, pushed) = (text(one, "repository"), text(one, "pushed_at"));
        [repository, tag.to_owned(), digest, pushed, policy, size(one, "exclusive_bytes"), size(one, "shared_bytes")]
    };
    let rows: Vec<[String; 7]> = list(plan, "deletes").map(row).collect();
    if !rows.is_empty() {
        let head = ["REPOSITORY", "TAG THAT GOES", "DIGEST", "PUSHED", "POLICY", "EXCLUSIVE", "SHARED"];
        section(console, &console::columns(head, &rows));
    }
    let calls: Vec<[String; 2]> = list(plan, "calls")
        .map(|one| [text(one, "repository"), one.get("call").map(|call| text(call, "request")).unwrap_or_default()])
        .collect();
    if !calls.is_empty() {
        section(console, &console::columns(["REPOSITORY", "REQUEST THAT DELETES"], &calls));
    }
}

fn branches(plan: &Value, console: &Console) {
    let mut parts: Vec<&Value> = list(plan, "branches").filter(|part| count(part, "deletes") > 0).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(count(part, "exclusive_bytes")));
    let more = parts.len().saturating_sub(BRANCHES_SHOWN);
    let row = |part: &Value| {
        let (repository, branch) = (text(part, "repository"), text(part, "branch"));
        let (tags, deletes) = (text(part, "tags"), text(part, "deletes"));
        [repository, branch, tags, deletes, size(part, "exclusive_bytes"), size(part, "shared_bytes")]
    };
    let rows: Vec<[String; 6]> = parts.into_iter().take(BRANCHES_SHOWN).map(row).collect();
    if rows.is_empty() {
        return;
    }
    let head = ["REPOSITORY", "BRANCH", "TAGS", "THAT GO", "EXCLUSIVE", "SHARED"];
    section(console, &console::columns(head, &rows));
    if more > 0 {
        console.note(&format!("{more} more branches are in the JSON (--json)"));
    }
}

fn repositories(plan: &Value, console: &Console) {
    let row = |part: &Value| {
        let (repository, tags, deletes) = (text(part, "repository"), text(part, "tags"), text(part, "deletes"));
        let (exclusive, shared) = (size(part, "exclusive_bytes"), size(part, "shared_bytes"));
        [repository, tags, deletes, exclusive, shared, size(part, "freed_bytes")]
    };
    let rows: Vec<[String; 6]> = list(plan, "repositories").map(row).collect();
    if !rows.is_empty() {
        let head = ["REPOSITORY", "TAGS", "THAT GO", "EXCLUSIVE", "SHARED", "FREED"];
        section(console, &console::columns(head, &rows));
    }
}

fn stays(plan: &Value, console: &Console) {
    let keepers = plan.get("keepers").and_then(Value::as_object).into_iter().flatten();
    let mut keepers: Vec<(u64, &str)> =
        keepers.map(|(keeper, count)| (count.as_u64().unwrap_or_default(), keeper.as_str())).collect();
    keepers.sort_unstable_by(|a, b| b.cmp(a));
    let mut rows: Vec<[String; 2]> =
        keepers.into_iter().map(|(count, keeper)| [count.to_string(), keeper.to_owned()]).collect();
    let waiting = count(plan, "waiting");
    if waiting > 0 {
        rows.push([waiting.to_string(), "in the plan, until their grace is over".to_owned()]);
    }
    if !rows.is_empty() {
        section(console, &console::columns(["THAT STAY", "KEPT BY"], &rows));
    }
    let unknown = count(plan, "unknown");
    if unknown > 0 {
        console.warning(&format!("{unknown} stay only because something about them is not known"));
    }
}

fn sum(plan: &Value) -> String {
    let deletes = list(plan, "deletes").count();
    let money = plan.get("saved_a_month_micros").and_then(Value::as_u64);
    let money = money.map(|micros| format!(", which cost {} a month", Money(micros))).unwrap_or_default();
    format!("{deletes} go; {} become free{money}.", console::size(count(plan, "freed_bytes")))
}

/// Prints a table with a line between it and what follows.
fn section(console: &Console, table: &str) {
    console.result(&format!("{table}\n"));
}

fn count(of: &Value, key: &str) -> u64 {
    of.get(key).and_then(Value::as_u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::print;
    use crate::cli::Console;

    #[test]
    fn a_plan_says_what_goes_with_bytes_and_money_and_what_stays() {
        let plan = json!({
            "deletes": [
                { "repository": "cache/app", "tag": "a-0123abc", "digest": "sha256:0123456789abcdef", "policy": "branches",
                  "along": false, "pushed_at": "2026-11-02T09:17:18Z", "exclusive_bytes": 1_048_576, "shared_bytes": 2048 },
                { "repository": "cache/app", "tag": null, "digest": "sha256:fedcba9876543210", "policy": "branches",
                  "along": true, "pushed_at": null, "exclusive_bytes": 0, "shared_bytes": 10 },
            ],
            "branches": [{ "repository": "cache/app", "branch": "a", "tags": 2, "deletes": 1, "exclusive_bytes": 1_048_576, "shared_bytes": 2048 }],
            "repositories": [{ "repository": "cache/app", "tags": 5, "deletes": 2, "exclusive_bytes": 5_242_880, "shared_bytes": 0, "freed_bytes": 1_048_576 }],
            "keepers": { "newest: 3 of branches": 3, "protect **:latest": 1 },
            "waiting": 1,
            "freed_bytes": 1_048_576_u64 * 1024 * 50,
            "saved_a_month_micros": 5_000_000,
        });
        let console = Console::kept(false);
        print(&plan, &console);
        let wanted = "\
REPOSITORY  TAG THAT GOES  DIGEST               PUSHED                POLICY           EXCLUSIVE  SHARED
cache/app   a-0123abc      sha256:0123456789ab  2026-11-02T09:17:18Z  branches         1.0 MiB    2.0 KiB
cache/app   (untagged)     sha256:fedcba987654                        branches, along  0 B        10 B

REPOSITORY  BRANCH  TAGS  THAT GO  EXCLUSIVE  SHARED
cache/app   a       2     1        1.0 MiB    2.0 KiB

REPOSITORY  TAGS  THAT GO  EXCLUSIVE  SHARED  FREED
cache/app   5     2        5.0 MiB    0 B     1.0 MiB

THAT STAY  KEPT BY
3          newest: 3 of branches
1          protect **:latest
1          in the plan, until their grace is over

2 go; 50.0 GiB become free, which cost 5.00 a month.
";
        assert_eq!(console.said(), wanted);
    }
}
