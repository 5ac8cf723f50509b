//! `larder prune`: what policies let go, as a table, as JSON, and as a file; and `larder prune --apply PLAN`, which carries
//! exactly that file out. `larder prune --replay 30d` only looks back.

mod replay;
mod table;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask;
use super::ls::list;
use super::ls::text;

/// How long a plan may take, and its carrying out: other registries are listed and deleted from at their own pace.
const PATIENCE: Duration = Duration::from_hours(2);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only what this policy lets go; what others keep stays all the same
    #[arg(long, value_name = "NAME", conflicts_with = "apply")]
    policy: Option<String>,
    /// Only this registry, by its host; without it what is hosted here, and every registry that policies name
    #[arg(long, value_name = "NAME", conflicts_with = "apply")]
    remote: Option<String>,
    /// Write the plan to a file, for --apply
    #[arg(long, value_name = "PLAN", conflicts_with = "apply")]
    out: Option<PathBuf>,
    /// Carry a plan out that --out wrote: exactly that, less what moved or is kept by now
    #[arg(long, value_name = "PLAN")]
    apply: Option<PathBuf>,
    /// Let the plan delete so many, whatever its policies say of it
    #[arg(long, value_name = "N", requires = "apply")]
    at_most: Option<u64>,
    /// What the policies would have freed with a run each day of so long, like 30d, and which pulls would have found nothing
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["apply", "out"])]
    replay: Option<String>,
}

pub(super) async fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let server = ask::Server::admin(global)?;
    match (&arguments.apply, &arguments.replay) {
        (Some(file), _) => apply(file, arguments.at_most, &server, console).await,
        (None, Some(since)) => replay::run(since, arguments, &server, console).await,
        (None, None) => plan(arguments, &server, console).await,
    }
}

async fn plan(arguments: &Arguments, server: &ask::Server, console: &Console) -> Result<Outcome, Error> {
    let wanted = json!({ "policy": arguments.policy, "remote": arguments.remote, "kept": console.json });
    let answer = server.post_patiently("/api/v1/prune/plan", &wanted, PATIENCE).await?;
    let plan = answer.get("plan").unwrap_or(&Value::Null);
    if let Some(file) = &arguments.out {
        let sealed = json!({ "plan": plan, "mac": answer.get("mac") });
        std::fs::write(file, format!("{sealed:#}\n"))
            .map_err(|source| Error::File { doing: format!("writing the plan to {}", file.display()), source })?;
    }
    if console.json {
        console.document(&answer);
    } else {
        table::print(plan, console);
        console.result(&match &arguments.out {
            _ if list(plan, "deletes").next().is_none() => "Nothing was deleted, and nothing would be.".to_owned(),
            Some(file) => format!("Nothing was deleted; apply with larder prune --apply {}", file.display()),
            None => {
                "Nothing was deleted; apply with larder prune --out PLAN, then larder prune --apply PLAN".to_owned()
            }
        });
    }
    let mut outcome = Outcome::Done;
    for failed in list(plan, "failed") {
        console.error(&format!("{}: {}; nothing is deleted there", text(failed, "what"), text(failed, "why")));
        outcome = Outcome::Undone;
    }
    Ok(outcome)
}

async fn apply(file: &Path, at_most: Option<u64>, server: &ask::Server, console: &Console) -> Result<Outcome, Error> {
    let read = std::fs::read(file)
        .map_err(|source| Error::File { doing: format!("reading the plan {}", file.display()), source })?;
    let sealed: Value = serde_json::from_slice(&read)
        .map_err(|error| Error::Usage(format!("{} is no plan: {error}", file.display())))?;
    let (Some(plan), Some(mac)) = (sealed.get("plan"), sealed.get("mac")) else {
        return Err(Error::Usage(format!("{} is no plan: larder prune --out writes one", file.display())));
    };
    let order = json!({ "plan": plan, "mac": mac, "at_most": at_most });
    let answer = server.post_patiently("/api/v1/prune/apply", &order, PATIENCE).await?;
    if console.json {
        console.document(&answer);
    }
    let (mut deleted, mut skipped) = (0_u64, 0_u64);
    for done in list(&answer, "results") {
        let name = table::name(done);
        if text(done, "outcome") == "deleted" {
            deleted += 1;
            if !console.json {
                console.result(&format!("{name}: deleted"));
            }
        } else {
            skipped += 1;
            console.error(&format!("{name}: {}, not deleted: {}", text(done, "outcome"), text(done, "why")));
        }
    }
    let broken: Vec<&str> = list(&answer, "broken").filter_map(Value::as_str).collect();
    for one in &broken {
        console.error(&format!("not whole any more: {one}"));
    }
    if !console.json {
        let verified = text(&answer, "verified");
        let skips = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
        let whole = if broken.is_empty() { "whole" } else { "looked at" };
        console.result(&format!("{deleted} deleted{skips}; {verified} tags that stay beside them are {whole}"));
    }
    Ok(if skipped == 0 && broken.is_empty() { Outcome::Done } else { Outcome::Undone })
}
