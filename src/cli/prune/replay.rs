//! `larder prune --replay 30d`: what policies would have done in the past.

use serde_json::Value;
use serde_json::json;

use crate::cli::Console;
use crate::cli::Error;
use crate::cli::Outcome;
use crate::cli::ask::Server;
use crate::cli::console::columns;
use crate::cli::console::size;
use crate::cli::ls::list;
use crate::cli::ls::text;
use crate::config::retention::Money;

use super::Arguments;
use super::PATIENCE;

pub(super) async fn run(
    since: &str,
    arguments: &Arguments,
    server: &Server,
    console: &Console,
) -> Result<Outcome, Error> {
    let wanted = json!({ "since": since, "policy": arguments.policy, "remote": arguments.remote });
    let answer = server.post_patiently("/api/v1/prune/replay", &wanted, PATIENCE).await?;
    if console.json {
        console.document(&answer);
    } else {
        print(&answer, since, console);
    }
    let mut outcome = Outcome::Done;
    for failed in list(&answer, "failed") {
        console.error(&format!("{} could not be looked at: {}", text(failed, "what"), text(failed, "why")));
        outcome = Outcome::Undone;
    }
    Ok(outcome)
}

fn print(answer: &Value, since: &str, console: &Console) {
    let rows: Vec<[String; 5]> = list(answer, "policies")
        .map(|one| ["policy", "deletes", "most_in_a_run", "missed_pulls", "refused_runs"].map(|key| text(one, key)))
        .collect();
    if rows.is_empty() {
        console.note("there are no policies to replay");
        return;
    }
    console.result(&columns(["POLICY", "DELETES", "MOST IN A RUN", "MISSED PULLS", "OVER AT_MOST"], &rows));
    let missed: Vec<[String; 5]> = list(answer, "missed")
        .map(|one| {
            let separator = if text(one, "reference").contains(':') { '@' } else { ':' };
            let name = format!("{}{separator}{}", text(one, "repository"), text(one, "reference"));
            [name, text(one, "pulls"), text(one, "pulled_at"), text(one, "deleted_at"), text(one, "policy")]
        })
        .collect();
    if !missed.is_empty() {
        console.result(&columns(["WOULD HAVE BEEN MISSED", "PULLS", "LAST PULL", "DELETED", "POLICY"], &missed));
    }
    if answer.get("more").and_then(Value::as_bool) == Some(true) {
        console.note("more would have been missed, which was pulled less");
    }
    console.result(&summary(answer, since));
    let known = text(answer, "known_since");
    if known.is_empty() || known > text(answer, "since") {
        let from =
            if known.is_empty() { "no pull is known yet".to_owned() } else { format!("pulls are known since {known}") };
        console.warning(&format!("{from}: what came before can't have been missed, and rules by last pull keep"));
    }
    console.result("Nothing was deleted.");
}

fn summary(answer: &Value, since: &str) -> String {
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or_default();
    let saved = answer.get("saved_a_month_micros").and_then(Value::as_u64);
    let saved = saved.map(|micros| format!(" ({} a month)", Money(micros))).unwrap_or_default();
    format!(
        "With a run each day of the last {since} {} tags would be gone now, and {} free{saved}; {} of {} pulls would have found \
         nothing.",
        number("tags"),
        size(number("freed_bytes")),
        number("missed_pulls"),
        number("pulls"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::summary;

    #[test]
    fn the_end_is_told_in_a_sentence() {
        let answer = json!({
            "tags": 12, "freed_bytes": 3_u64 << 30, "saved_a_month_micros": 300_000, "pulls": 90, "missed_pulls": 2,
        });
        assert_eq!(
            summary(&answer, "30d"),
            "With a run each day of the last 30d 12 tags would be gone now, and 3.0 GiB free (0.30 a month); 2 of 90 pulls would \
             have found nothing."
        );
    }
}
