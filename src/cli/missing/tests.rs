use serde_json::Value;
use serde_json::json;

use super::Row;
use super::azure;
use super::github;
use super::gitlab;

fn rows(rows: Value) -> Vec<Row> {
    serde_json::from_value(rows).unwrap()
}

fn two() -> Vec<Row> {
    rows(json!([
        { "name": "app", "path": "a b", "image": "docker.io/acme/app:1" },
        { "name": "app", "path": "a/b", "image": "docker.io/acme/app:50%\n$HOME" },
    ]))
}

#[test]
fn github_has_two_lines_whatever_is_in_the_rows() {
    let lines = github::lines(&two());
    let (count, matrix) = lines.trim_end().split_once('\n').unwrap();
    assert_eq!(count, "count=2");
    let matrix: Value = serde_json::from_str(matrix.strip_prefix("matrix=").unwrap()).unwrap();
    assert_eq!(matrix, json!({ "include": two() }));
    assert_eq!(github::lines(&[]), "count=0\nmatrix={\"include\":[]}\n");
}

#[test]
fn azure_has_a_name_for_each_leg_and_escapes_what_commands_would_read() {
    let commands = azure::commands(&two());
    let (count, matrix) = commands.trim_end().split_once('\n').unwrap();
    assert_eq!(count, "##vso[task.setvariable variable=count;isOutput=true]2");
    let matrix = matrix.strip_prefix("##vso[task.setvariable variable=matrix;isOutput=true]").unwrap();
    assert!(!matrix.contains('\n') && matrix.contains("50%AZP25"), "{matrix}");
    let matrix: Value = serde_json::from_str(&matrix.replace("%AZP25", "%")).unwrap();
    assert_eq!(matrix, json!({ "cell_app_a_b": two()[0], "cell_app_a_b_2": two()[1] }));
    assert!(azure::commands(&[]).ends_with("isOutput=true]{}\n"));
}

#[test]
fn gitlab_has_a_job_a_row_and_one_that_does_nothing() {
    let pipeline: Value = serde_json::from_str(&gitlab::pipeline(&two(), "ci/cell.yml")).unwrap();
    assert_eq!(pipeline["include"], json!([{ "local": "ci/cell.yml" }]));
    let variables = &pipeline["cell_app_a_b_2"]["variables"];
    assert_eq!(pipeline["cell_app_a_b_2"]["extends"], ".larder-cell");
    assert_eq!(variables["CELL_PATH"], "a/b");
    assert_eq!(variables["CELL_IMAGE"], "docker.io/acme/app:50%\n$$HOME");
    assert_eq!(pipeline.as_object().unwrap().len(), 3);
    let nothing: Value = serde_json::from_str(&gitlab::pipeline(&[], "ci/cell.yml")).unwrap();
    assert_eq!(nothing, json!({ "nothing_missing": { "script": ["echo nothing is missing"] } }));
}
