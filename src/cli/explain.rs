//! `larder explain REF`: where an image is, and why a pull of it hits or misses.

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask;
use super::ls::list;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image, as it would be pulled
    #[arg(value_name = "REF")]
    reference: String,
}

pub(super) async fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let server = ask::Server::admin(global)?;
    let answer = server.get(&format!("/api/v1/explain?{}", ask::query("ref", &arguments.reference))).await?;
    if console.json {
        console.document(&answer);
        return Ok(Outcome::Done);
    }
    for sentence in list(&answer, "sentences").filter_map(serde_json::Value::as_str) {
        console.result(sentence);
    }
    Ok(Outcome::Done)
}
