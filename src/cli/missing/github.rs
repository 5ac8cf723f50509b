//! Lines for `$GITHUB_OUTPUT`: `count` for the job's `if`, `matrix` for its `strategy`.
//!
//! <https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstrategymatrix>

use serde_json::json;

use super::Row;

/// "A matrix will generate a maximum of 256 jobs per workflow run."
pub(super) const ROWS_MAX: usize = 256;

/// Both lines. GitHub fails on an empty matrix, so the job needs `if: … != '0'`.
pub(super) fn lines(rows: &[Row]) -> String {
    // JSON of one line: what is in it can't begin a further output.
    format!("count={}\nmatrix={}\n", rows.len(), json!({ "include": rows }))
}
