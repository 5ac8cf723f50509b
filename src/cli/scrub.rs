//! `larder scrub`: the server hashes what it stores again; progress on standard error, what failed as the result.

use serde_json::Value;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask;
use super::console::size;
use super::ls::list;
use super::ls::text;

pub(super) async fn run(global: &Global, console: &Console) -> Result<Outcome, Error> {
    let server = ask::Server::admin(global)?;
    let mut last = Value::Null;
    server
        .lines("/api/v1/scrub", |line| {
            if console.json {
                console.result(&line.to_string());
            } else if line.get("done").is_none() {
                console.progress(&progress(line), false);
            }
            last = line.clone();
        })
        .await?;
    if last.get("done").and_then(Value::as_bool) != Some(true) {
        return Err(Error::Refused("the scrub ended before its end; what it checked is remembered".to_owned()));
    }
    let failures: Vec<&Value> = list(&last, "failures").collect();
    if !console.json {
        console.progress("", true);
        for failure in &failures {
            console.result(failure.as_str().map_or_else(|| failure.to_string(), str::to_owned).as_str());
        }
        let bytes = last.get("bytes").and_then(Value::as_u64).unwrap_or_default();
        let sum = format!("{} blobs with {} checked, {} damaged", text(&last, "checked"), size(bytes), failures.len());
        console.result(&sum);
    }
    Ok(if failures.is_empty() { Outcome::Done } else { Outcome::Undone })
}

fn progress(line: &Value) -> String {
    let bytes = line.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    match line.get("total").and_then(Value::as_u64) {
        Some(total) => format!("{} of {} checked", size(bytes), size(total)),
        None => format!("{} checked", size(bytes)),
    }
}
