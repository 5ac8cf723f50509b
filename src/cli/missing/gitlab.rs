//! A child pipeline: one job a row, each extending the project's own `.larder-cell`; a job that does nothing where nothing
//! is missing, since a pipeline without jobs fails.
//!
//! <https://docs.gitlab.com/ci/pipelines/downstream_pipelines/#dynamic-child-pipelines>

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Row;
use super::job_names;

/// A name of a job has 255 bytes at most; some are left for a number behind it.
const NAME_BYTES_MAX: usize = 240;

/// The job that rows extend.
const JOB: &str = ".larder-cell";

/// The pipeline, as JSON, which is YAML too.
pub(super) fn pipeline(rows: &[Row], job_file: &str) -> String {
    if rows.is_empty() {
        let nothing = json!({ "nothing_missing": { "script": ["echo nothing is missing"] } });
        return format!("{nothing:#}\n");
    }
    let mut pipeline = Map::new();
    pipeline.insert("include".to_owned(), json!([{ "local": job_file }]));
    for (name, row) in job_names(rows, NAME_BYTES_MAX).into_iter().zip(rows) {
        let variables: Map<String, Value> = row.iter().map(|(name, value)| (variable(name), escaped(value))).collect();
        pipeline.insert(name, json!({ "extends": JOB, "variables": variables }));
    }
    format!("{:#}\n", Value::Object(pipeline))
}

/// `CELL_` in front, so that an axis called `path` leaves the job its `PATH`.
fn variable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("CELL_{}", name.chars().map(plain).collect::<String>())
}

/// GitLab expands `$` in variables; twice it means itself.
fn escaped(value: &Value) -> Value {
    value.as_str().unwrap_or_default().replace('$', "$$").into()
}
