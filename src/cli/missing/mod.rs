//! `larder missing MATRIX`: which images of a matrix are neither here nor upstream, as the matrix of a CI job.

mod azure;
mod github;
mod gitlab;

use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::config::duration;
use crate::warm::missing::matrix::Matrix;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::console;
use super::ls::list;
use super::ls::text;
use super::runs::Where;

/// How long an answer may take: each cell that is not here is looked for at its upstream.
const PATIENCE: Duration = Duration::from_mins(30);

/// The longest matrix, in bytes: no server takes a longer one.
const MATRIX_BYTES_MAX: u64 = 64 << 20;

/// The most cells that a matrix is read with; the server's own limit counts.
const CELLS_MAX: usize = 1_000_000;

/// Failures that are told of one by one.
const FAILURES_TOLD: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A file with the matrix, in YAML or JSON; `-` reads it from standard input
    #[arg(value_name = "MATRIX")]
    matrix: PathBuf,
    /// How the rows are written: table, github, gitlab, azure or json
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Exit 1 where something is missing
    #[arg(long)]
    check: bool,
    /// Keep others from building what is missing, for so long: they are told that it is leased
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    lease: Option<Duration>,
    /// With gitlab: the file of the project in which the job `.larder-cell` is, which each row extends
    #[arg(long, value_name = "FILE", default_value = ".gitlab/larder-cell.yml")]
    job_file: String,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Github,
    Gitlab,
    Azure,
    Json,
}

type Row = Map<String, Value>;

pub(super) async fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let matrix = read(&arguments.matrix)?;
    // Here the mistake is named with its file, and no server has to be there for that.
    Matrix::parse(&matrix, CELLS_MAX)
        .map_err(|problem| Error::Usage(format!("{}:{problem}", shown(&arguments.matrix))))?;
    let format = if console.json && arguments.format == Format::Table { Format::Json } else { arguments.format };
    let rows_max = match format {
        Format::Github => Some(github::ROWS_MAX),
        Format::Azure => Some(azure::ROWS_MAX),
        Format::Gitlab | Format::Table | Format::Json => None,
    };
    let wanted = json!({ "matrix": matrix, "lease": arguments.lease.map(duration::show), "rows_max": rows_max });
    let answer = arguments.at.server(global)?.post_patiently("/api/v1/missing", &wanted, PATIENCE).await?;
    let rows: Vec<Row> = list(&answer, "rows").filter_map(Value::as_object).cloned().collect();
    match format {
        Format::Table => table(&answer, console),
        Format::Json => console.document(&answer),
        Format::Github => console.result(&github::lines(&rows)),
        Format::Gitlab => console.result(&gitlab::pipeline(&rows, &arguments.job_file)),
        Format::Azure => console.result(&azure::commands(&rows)),
    }
    Ok(say(&answer, arguments.check, console))
}

/// The matrix as it is written.
fn read(path: &Path) -> Result<String, Error> {
    let fault = |source| Error::File { doing: format!("reading the matrix {}", shown(path)), source };
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MATRIX_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MATRIX_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    if read.map_err(fault)? as u64 > MATRIX_BYTES_MAX {
        return Err(Error::Usage(format!("{} has more than 64 MiB", shown(path))));
    }
    String::from_utf8(bytes).map_err(|_| Error::Usage(format!("{} is not text in UTF-8", shown(path))))
}

fn shown(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() }
}

fn table(answer: &Value, console: &Console) {
    let row = |cell: &Value| [text(cell, "image"), text(cell, "state")];
    let rows: Vec<[String; 2]> = list(answer, "cells").map(row).collect();
    if !rows.is_empty() {
        console.result(&console::columns(["IMAGE", "STATE"], &rows));
    }
}

/// Says what is not in the rows, and what it comes to.
fn say(answer: &Value, check: bool, console: &Console) -> Outcome {
    let of = |state: &'static str| list(answer, "cells").filter(move |cell| text(cell, "state") == state);
    let count = |state: &'static str| of(state).count();
    for cell in of("failed").take(FAILURES_TOLD) {
        console.error(&format!("{}: {}", text(cell, "image"), text(cell, "error")));
    }
    let failed = count("failed");
    if failed > FAILURES_TOLD {
        console.error(&format!("{} further cells could not be looked for", failed - FAILURES_TOLD));
    }
    for cell in of("leased").take(FAILURES_TOLD) {
        let until = text(cell, "leased_until");
        console.note(&format!(
            "{}: left out, somebody else builds it and has it leased until {until}",
            text(cell, "image")
        ));
    }
    let (missing, leased) = (count("missing"), count("leased"));
    let until = text(answer, "leased_until");
    let until = if until.is_empty() { until } else { format!(" (leased until {until})") };
    console.note(&format!(
        "{missing} missing{until}, {leased} leased by others, {} here, {} upstream, {failed} failed",
        count("here"),
        count("upstream")
    ));
    if failed > 0 || (check && missing + leased > 0) { Outcome::Undone } else { Outcome::Done }
}

/// The names of jobs: letters and digits of the row's values, each once.
fn job_names(rows: &[Row], bytes_max: usize) -> Vec<String> {
    let mut taken = std::collections::HashSet::new();
    let mut names = Vec::with_capacity(rows.len());
    for row in rows {
        let values = row.iter().filter(|(name, _)| !is_added(name)).filter_map(|(_, value)| value.as_str());
        let words: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let mut name: String = std::iter::once("cell").chain(words).collect::<Vec<_>>().join("_");
        name = name.chars().map(plain).take(bytes_max).collect();
        let mut unique = name.clone();
        let mut again = 2;
        while !taken.insert(unique.clone()) {
            unique = format!("{name}_{again}");
            again += 1;
        }
        names.push(unique);
    }
    names
}

/// Whether a row has it from larder, not from the matrix.
fn is_added(name: &str) -> bool {
    use crate::warm::missing::matrix::CELLS;
    use crate::warm::missing::matrix::IMAGE;
    matches!(name, IMAGE | CELLS)
}

#[cfg(test)]
mod tests;
