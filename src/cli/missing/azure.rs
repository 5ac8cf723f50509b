//! Logging commands that set output variables: `count` for the job's `condition`, `matrix` for its `strategy`.
//!
//! <https://learn.microsoft.com/en-us/azure/devops/pipelines/yaml-schema/jobs-job-strategy>

use serde_json::Map;
use serde_json::Value;

use super::Row;
use super::job_names;

/// The most jobs that one matrix makes.
pub(super) const ROWS_MAX: usize = 256;

/// The longest name of a leg is 100 characters; some are left for a number behind it.
const NAME_BYTES_MAX: usize = 90;

/// Both commands. A matrix is a mapping of names to variables.
pub(super) fn commands(rows: &[Row]) -> String {
    let named = job_names(rows, NAME_BYTES_MAX).into_iter().zip(rows.iter().cloned().map(Value::Object));
    let matrix: Map<String, Value> = named.collect();
    let set =
        |name: &str, value: &str| format!("##vso[task.setvariable variable={name};isOutput=true]{}\n", data(value));
    set("count", &rows.len().to_string()) + &set("matrix", &Value::Object(matrix).to_string())
}

/// What a command's data is written as; line breaks are escaped in JSON already.
fn data(value: &str) -> String {
    value.replace('%', "%AZP25").replace('\r', "%0D").replace('\n', "%0A")
}
