use proptest::prelude::*;

use super::*;

fn headers(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap())).collect()
}

#[test]
fn challenges_of_registries_are_read() {
    let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
    let Some(Challenge::Bearer(found)) = read(&headers(&[hub])) else { panic!("a token is wanted") };
    assert_eq!(found.realm, "https://auth.docker.io/token");
    assert_eq!(found.service.as_deref(), Some("registry.docker.io"));
    assert_eq!(found.scope.as_deref(), Some("repository:a/b:pull"));
    for (values, want) in [
        (&["Basic realm=\"x\""][..], Some(true)),
        (&["bearer realm=\"https://a/t\""], Some(false)),
        (&["Basic realm=\"x\"", "Bearer realm=\"https://a/t\""], Some(false)),
        (&["Basic realm=\"x\", Bearer realm=\"https://a/t\""], Some(false)),
        (&["Bearer service=\"no realm\""], None),
        (&["Bearer"], None),
        (&["Digest realm=\"x\", nonce=\"y\""], None),
        (&["Bearer realm=\"unterminated"], None),
        (&[""], None),
    ] {
        let found = read(&headers(values)).map(|challenge| challenge == Challenge::Basic);
        assert_eq!(found, want, "{values:?}");
    }
}

proptest! {
    #[test]
    fn no_header_makes_it_panic(text in "[ -~]{0,200}") {
        read(&headers(&[&text]));
    }
}
