use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::Matrix;

const MOST: usize = 1_000;

fn matrix(document: &Value) -> Matrix {
    Matrix::parse(&document.to_string(), MOST).unwrap()
}

/// The cells, less their images.
fn cells(document: &Value) -> Value {
    let cells = matrix(document).expand(&[], MOST).unwrap();
    cells.iter().map(|cell| json!(cell.values.iter().map(|(n, v)| (&**n, &**v)).collect::<BTreeMap<_, _>>())).collect()
}

fn refused(text: &str) -> String {
    let read = Matrix::parse(text, MOST).and_then(|matrix| {
        let latest: Vec<Arc<str>> = matrix.latest().map(|_| "1.0.0".into()).collect();
        matrix.expand(&latest, MOST)
    });
    read.expect_err(text).to_string()
}

#[test]
fn include_is_githubs() {
    // The example of GitHub's documentation; the axes come in the order of their names.
    let document = json!({
        "image": "docker.io/acme/x:1",
        "matrix": { "fruit": ["apple", "pear"], "animal": ["cat", "dog"] },
        "include": [
            { "color": "green" },
            { "color": "pink", "animal": "cat" },
            { "fruit": "apple", "shape": "circle" },
            { "fruit": "banana" },
            { "fruit": "banana", "animal": "cat" },
        ],
    });
    assert_eq!(
        cells(&document),
        json!([
            { "fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle" },
            { "fruit": "pear", "animal": "cat", "color": "pink" },
            { "fruit": "apple", "animal": "dog", "color": "green", "shape": "circle" },
            { "fruit": "pear", "animal": "dog", "color": "green" },
            { "fruit": "banana" },
            { "fruit": "banana", "animal": "cat" },
        ])
    );
}

#[test]
fn exclude_comes_first_and_matches_in_part() {
    let document = json!({
        "image": "docker.io/acme/{name}:{version}",
        "matrix": { "name": ["a", "b"], "version": ["1", "2"] },
        "exclude": [{ "name": "a" }, { "version": "9" }],
        "include": [{ "name": "a", "version": "1", "note": "again" }],
    });
    assert_eq!(
        cells(&document),
        json!([
            { "name": "b", "version": "1" }, { "name": "b", "version": "2" },
            { "name": "a", "version": "1", "note": "again" },
        ])
    );
}

#[test]
fn values_are_text_as_written_and_each_counts_once() {
    let text = "image: acme/app:{python}\nmatrix:\n  python: [3.9, 3.10, 3.10, 'x']\n";
    let cells = Matrix::parse(text, MOST).unwrap().expand(&[], MOST).unwrap();
    let images: Vec<&str> = cells.iter().map(|cell| &*cell.image).collect();
    assert_eq!(images, ["acme/app:3.9", "acme/app:3.10", "acme/app:x"]);
}

#[test]
fn an_empty_axis_and_an_empty_matrix_have_no_cells() {
    for of_axes in [json!({}), json!({ "v": [] }), json!({ "v": [], "w": ["1"] })] {
        assert_eq!(cells(&json!({ "image": "acme/app:1", "matrix": of_axes })), json!([]));
    }
}

#[test]
fn what_is_looked_up_takes_its_place_in_order() {
    let document = json!({
        "image": "acme/app:{v}",
        "matrix": { "v": ["1.0.0", { "latest": { "tags": "acme/app", "semver": true } }, "1.2.0"] },
    });
    let matrix = matrix(&document);
    assert_eq!(matrix.latest().map(|latest| &*latest.repository).collect::<Vec<_>>(), ["acme/app"]);
    for (found, wanted) in [("v2.0.0", vec!["1.0.0", "v2.0.0", "1.2.0"]), ("1.2.0", vec!["1.0.0", "1.2.0"])] {
        let cells = matrix.expand(&[found.into()], MOST).unwrap();
        assert_eq!(cells.iter().map(|cell| &*cell.values["v"]).collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn rows_are_groups_with_their_cells_as_text() {
    // Wheels: names, versions and platforms, a row for each worker.
    let document = json!({
        "image": "acme/wheels/{name}:{version}-{platform}",
        "matrix": { "platform": ["linux", "mac"], "name": ["a", "b"], "version": ["1"] },
        "group_by": ["platform"],
    });
    let matrix = matrix(&document);
    let cells = matrix.expand(&[], MOST).unwrap();
    let rows = matrix.rows(cells.iter().filter(|cell| *cell.image != *"acme/wheels/a:1-mac"));
    assert_eq!(rows.iter().map(|row| row["platform"].as_str().unwrap()).collect::<Vec<_>>(), ["linux", "mac"]);
    let of_mac: Value = serde_json::from_str(rows[1]["cells"].as_str().unwrap()).unwrap();
    assert_eq!(of_mac, json!([{ "name": "b", "version": "1", "platform": "mac", "image": "acme/wheels/b:1-mac" }]));
    assert!(matrix.too_many_rows(300, 256).to_string().contains("group_by"));
}

#[test]
fn what_is_wrong_is_told_in_one_line_with_its_place() {
    for (text, told) in [
        ("", "1:1: a matrix is a mapping with image, matrix, include, exclude and group_by"),
        ("image: a:1\nimage: b:1\n", "the key `image` stands here for the second time"),
        ("image: [\n", ""),
        ("matrix: {}\n", "1:1: `image` is missing: the template of the images' names"),
        ("image: a:1\n", "1:1: `matrix` is missing: axes with their lists of values"),
        ("image: a:1\nmatrix: {}\nonly: 1\n", "3:1: only: unknown key; a matrix has"),
        ("image: a:{v\nmatrix: {}\n", "1:8: image: a `{` needs its `}`"),
        ("image: a:{w}\nmatrix:\n  v: [1]\n", "1:8: image: the template's `{w}` is no axis of the matrix"),
        ("image: a:1\nmatrix:\n  v: 1\n", "3:3: matrix.v: expected a list"),
        ("image: a:1\nmatrix:\n  v: [1, [2]]\n", "3:10: matrix.v[1]: expected one value, found a list"),
        ("image: a:1\nmatrix:\n  image: [1]\n", "3:3: matrix.image: `image` is what larder adds to a row"),
        ("image: a:1\nmatrix:\n  a b: [1]\n", "3:3: matrix.a b: a name has letters, digits"),
        ("image: a:1\nmatrix:\n  v: [{tags: x}]\n", "3:7: matrix.v[0]: a value that is looked up is written latest:"),
        ("image: a:1\nmatrix:\n  v: [{latest: {tags: x}}]\n", "3:8: matrix.v[0].latest: `semver: true` is missing"),
        ("image: a:1\nmatrix:\n  v: [1]\nexclude: [{w: 1}]\n", "4:11: exclude[0]: `w` is no axis of the matrix"),
        ("image: a:1\nmatrix:\n  v: [1]\ninclude: [{}]\n", "4:11: include[0]: it names nothing"),
        ("image: a:1\nmatrix:\n  v: [1]\ngroup_by: [w]\n", "4:12: group_by[0]: `w` is no axis of the matrix"),
        ("image: a:1\nmatrix:\n  v: [1]\ngroup_by: [v, v]\n", "4:15: group_by[1]: `v` stands twice"),
        ("image: a:{v}\ninclude: [{v: 1}, {w: 1}]\n", "2:19: include[1]: the cell has no `v`, which the image's"),
        (
            "image: a:1\ngroup_by: v\ninclude: [{v: 1}, {w: 1}]\n",
            "3:19: include[1]: the cell has no `v`, which group_by",
        ),
        ("image: a:{sha}\nmatrix:\n  sha: [x]\n", "1:8: image: the values"),
    ] {
        let message = refused(text);
        assert!(message.contains(told) && !message.contains('\n'), "{text:?}: {message}");
    }
}

#[test]
fn a_matrix_that_explodes_is_refused_before_it_does() {
    let axis: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let axes: BTreeMap<String, &Vec<String>> = (0..30).map(|n| (format!("a{n}"), &axis)).collect();
    let message = refused(&json!({ "image": "a:1", "matrix": axes }).to_string());
    assert!(message.contains("more cells than can be counted") && message.contains("limits.cells"), "{message}");
    let two: BTreeMap<String, &Vec<String>> = (0..2).map(|n| (format!("a{n}"), &axis)).collect();
    let message = refused(&json!({ "image": "a:1", "matrix": two }).to_string());
    assert!(message.contains("comes to 10000 cells; it may have 1000"), "{message}");
    let list: Vec<Value> = (0..1_001).map(|n| json!({ "n": n.to_string() })).collect();
    let message = refused(&json!({ "image": "a:{n}", "include": list }).to_string());
    assert!(message.contains("comes to 1001 cells"), "{message}");
    // Each entry is added to each of a hundred cells.
    let wide = "x".repeat(1_000);
    let add: Vec<Value> = (0..100).map(|n| json!({ format!("k{n}"): wide })).collect();
    let message = refused(&json!({ "image": "a:1", "matrix": { "v": axis }, "include": add }).to_string());
    assert!(message.contains("the cells have more values"), "{message}");
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n";
    assert!(!refused(&format!("{bomb}{bomb}")).is_empty());
}

fn of_axes() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(0_u8..4, 0..4), 1..4)
}

proptest! {
    #[test]
    fn without_more_the_cells_are_the_product(axes in of_axes()) {
        let named: BTreeMap<String, Vec<String>> =
            axes.iter().enumerate().map(|(n, values)| (format!("a{n}"), values.iter().map(u8::to_string).collect())).collect();
        let cells = cells(&json!({ "image": "a:1", "matrix": named }));
        let cells = cells.as_array().unwrap();
        let product: usize = axes.iter().map(|values| values.iter().collect::<BTreeSet<_>>().len()).product();
        prop_assert_eq!(cells.len(), product);
        let distinct: BTreeSet<String> = cells.iter().map(Value::to_string).collect();
        prop_assert_eq!(distinct.len(), product);
    }

    #[test]
    fn exclude_takes_out_what_it_matches_and_nothing_else(axes in of_axes(), out in prop::collection::btree_map(0_usize..3, 0_u8..4, 1..3)) {
        let named: BTreeMap<String, Vec<String>> =
            axes.iter().enumerate().map(|(n, values)| (format!("a{n}"), values.iter().map(u8::to_string).collect())).collect();
        let out: BTreeMap<String, String> = out.into_iter().filter(|(n, _)| *n < axes.len()).map(|(n, v)| (format!("a{n}"), v.to_string())).collect();
        prop_assume!(!out.is_empty());
        let all = cells(&json!({ "image": "a:1", "matrix": named }));
        let left = cells(&json!({ "image": "a:1", "matrix": named, "exclude": [out] }));
        let matches = |cell: &Value| out.iter().all(|(name, value)| cell[name] == **value);
        let wanted: Vec<&Value> = all.as_array().unwrap().iter().filter(|cell| !matches(cell)).collect();
        prop_assert_eq!(left.as_array().unwrap().iter().collect::<Vec<_>>(), wanted);
        // What was taken out comes back, whole, where it is included.
        let mut back = out.clone();
        back.insert("more".to_owned(), "x".to_owned());
        let with = cells(&json!({ "image": "a:1", "matrix": named, "exclude": [out], "include": [back] }));
        prop_assert_eq!(with.as_array().unwrap().len(), left.as_array().unwrap().len() + 1);
    }

    #[test]
    fn rows_hold_every_cell_once(axes in of_axes(), by in 0_usize..3) {
        prop_assume!(by < axes.len());
        let axis = format!("a{by}");
        let named: BTreeMap<String, Vec<String>> =
            axes.iter().enumerate().map(|(n, values)| (format!("a{n}"), values.iter().map(u8::to_string).collect())).collect();
        let matrix = matrix(&json!({ "image": "a:1", "matrix": named, "group_by": [axis] }));
        let cells = matrix.expand(&[], MOST).unwrap();
        let rows = matrix.rows(cells.iter());
        let mut held = Vec::new();
        for row in &rows {
            let of_row: Vec<Value> = serde_json::from_str(row["cells"].as_str().unwrap()).unwrap();
            let grouped = of_row.iter().all(|cell| cell[&axis] == row[&axis]);
            prop_assert!(grouped);
            held.extend(of_row.iter().map(Value::to_string));
        }
        let groups: BTreeSet<String> = rows.iter().map(|row| row[&axis].to_string()).collect();
        prop_assert_eq!(groups.len(), rows.len());
        prop_assert_eq!(held.len(), cells.len());
        prop_assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), cells.len());
    }

    #[test]
    fn no_text_makes_it_panic(text in "[ -~\n]{0,200}", value in "\\PC{0,20}") {
        let _ = Matrix::parse(&text, MOST);
        let document = json!({ "image": "a:{v}", "matrix": { "v": [value] } });
        let _ = Matrix::parse(&document.to_string(), MOST).and_then(|matrix| matrix.expand(&[], MOST));
    }
}
