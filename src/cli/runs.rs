//! `larder runs list | show ID | end ID`: the runs that live, what one saw, and its end.

use serde_json::Value;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask;
use super::console;
use super::ls::list;
use super::ls::text;

/// Where a command asks that a CI job may use as well.
#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The registry's address of the server, as a CI job reaches it, instead of the admin address; a user's name and
    /// password stand in it
    #[arg(long, value_name = "URL", env = "LARDER_URL", hide_env_values = true)]
    server: Option<String>,
}

/// What is done.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Order {
    /// The runs that live, those that were used last first
    List {
        #[command(flatten)]
        at: Where,
    },
    /// What a run saw
    Show {
        /// The run, as it stands after run/ in names
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        at: Where,
    },
    /// End a run: its next request begins it anew
    End {
        /// The run, as it stands after run/ in names
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        at: Where,
    },
}

impl Where {
    pub(super) fn server(&self, global: &Global) -> Result<ask::Server, Error> {
        match &self.server {
            // The more particular flag counts; the address of the environment is there for every command of a job.
            Some(url) if global.admin.is_none() => ask::Server::at(url, "--server"),
            _ => ask::Server::admin(global),
        }
    }
}

pub(super) async fn run(order: &Order, global: &Global, console: &Console) -> Result<Outcome, Error> {
    match order {
        Order::List { at } => {
            let answer = at.server(global)?.get("/api/v1/runs").await?;
            if console.json {
                console.document(&answer);
            } else {
                print_runs(&answer, console);
            }
        }
        Order::Show { id, at } => {
            let answer = at.server(global)?.get(&path(id)?).await?;
            if console.json {
                console.document(&answer);
            } else {
                print_run(&answer, console);
            }
        }
        Order::End { id, at } => {
            let answer = at.server(global)?.delete(&path(id)?).await?;
            if console.json {
                console.document(&answer);
            } else {
                console.result(&format!("{id}: ended"));
            }
        }
    }
    Ok(Outcome::Done)
}

/// The path of a run; its name is what can stand in one.
fn path(id: &str) -> Result<String, Error> {
    let good =
        !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'));
    if good {
        Ok(format!("/api/v1/runs/{id}"))
    } else {
        Err(Error::Usage(format!("`{id}` is no run: its name has letters, digits, `-`, `_`, `.` and `~`")))
    }
}

fn print_runs(answer: &Value, console: &Console) {
    let row = |run| {
        [text(run, "id"), text(run, "tags"), text(run, "began_at"), text(run, "used_at"), text(run, "expires_at")]
    };
    let rows: Vec<[String; 5]> = list(answer, "runs").map(row).collect();
    if rows.is_empty() {
        console.note("no run lives");
        return;
    }
    console.result(&console::columns(["RUN", "TAGS", "BEGAN", "LAST USE", "OVER AT"], &rows));
    if answer.get("more").and_then(Value::as_bool) == Some(true) {
        console.note("there are more, which were used longer ago");
    }
}

fn print_run(answer: &Value, console: &Console) {
    let row = |tag| [text(tag, "repository"), text(tag, "tag"), text(tag, "digest"), text(tag, "at")];
    let rows: Vec<[String; 4]> = list(answer, "tags").map(row).collect();
    console.note(&format!(
        "{} began at {}, was used last at {}, and is over at {} unless it is used again",
        text(answer, "id"),
        text(answer, "began_at"),
        text(answer, "used_at"),
        text(answer, "expires_at")
    ));
    console.result(&console::columns(["REPOSITORY", "TAG", "DIGEST", "SINCE"], &rows));
}
