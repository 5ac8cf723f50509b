use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;

use super::*;

fn answer(headers: &[(&'static str, &str)]) -> Answer {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
    Answer { status: "200".parse().unwrap(), headers, body: Bytes::new() }
}

#[test]
fn the_next_page_is_the_one_that_the_forge_names() {
    let at: Url = "http://f.test/branches?per_page=2&page=1".parse().unwrap();
    let second = Ok(Some("http://f.test/branches?per_page=2&page=2".to_owned()));
    for (headers, counts, want) in [
        (vec![("link", r#"<http://f.test/branches?per_page=2&page=2>; rel="next""#)], (2, 2), &second),
        // It calls itself otherwise; it is asked where the configuration says.
        (vec![("link", r#"<https://public.test/x?per_page=2&page=2>; rel="next""#)], (1, 1), &second),
        (vec![("link", r#"<http://f.test/branches?per_page=2&page=1>; rel="first""#)], (2, 2), &Ok(None)),
        (vec![("x-next-page", "2")], (1, 1), &second),
        (vec![("x-next-page", "")], (2, 2), &Ok(None)),
        (vec![("x-total-count", "3")], (2, 2), &second),
        (vec![("x-total-count", "2")], (2, 2), &Ok(None)),
        (vec![("x-total-count", "3")], (0, 2), &Err(())),
        (vec![], (2, 2), &second),
        (vec![], (1, 1), &Ok(None)),
        (vec![("link", r#"<http://f.test/branches?per_page=2&page=1>; rel="next""#)], (2, 2), &Err(())),
        (vec![("x-next-page", "two")], (2, 2), &Err(())),
    ] {
        let found = next(&at, &answer(&headers), counts).map(|url| url.map(String::from)).map_err(|_| ());
        assert_eq!(found, *want, "{headers:?}");
    }
}
