//! `larder refresh REF…` and `larder evict REF…`: look at the upstream now; drop what is held.

use serde_json::Value;
use serde_json::json;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask;
use super::console;
use super::ls::list;
use super::ls::text;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Images, as they would be pulled
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Refresh,
    Evict,
}

pub(super) async fn run(
    order: Order,
    arguments: &Arguments,
    global: &Global,
    console: &Console,
) -> Result<Outcome, Error> {
    let server = ask::Server::admin(global)?;
    let path = match order {
        Order::Refresh => "/api/v1/refresh",
        Order::Evict => "/api/v1/evict",
    };
    let answer = server.post(path, &json!({ "refs": arguments.references })).await?;
    if console.json {
        console.document(&answer);
    }
    let mut outcome = Outcome::Done;
    let mut answered = 0;
    for result in list(&answer, "results") {
        answered += 1;
        let error = text(result, "error");
        if !error.is_empty() {
            console.error(&format!("{}: {error}", text(result, "ref")));
            outcome = Outcome::Undone;
        } else if !console.json {
            console.result(&line(result));
        }
    }
    if answered < arguments.references.len() {
        console.error("the server answered for fewer images than were asked for");
        outcome = Outcome::Undone;
    }
    Ok(outcome)
}

fn line(result: &Value) -> String {
    let digest = text(result, "digest");
    let digest = if digest.is_empty() { digest } else { format!(" {digest}") };
    let freed = result.get("freed_bytes").and_then(Value::as_u64);
    let freed = freed.map(|bytes| format!(", {} freed", console::size(bytes))).unwrap_or_default();
    format!("{}: {}{digest}{freed}", text(result, "ref"), text(result, "outcome"))
}
