use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn names() -> Names {
    let registries: BTreeSet<RegistryName> = ["docker.io", "ghcr.io", "gcr.io", "127.0.0.1:5050", "localhost:5060"]
        .iter()
        .map(|h| h.parse().unwrap())
        .collect();
    Names {
        registries,
        default: "docker.io".parse().unwrap(),
        hosted: vec!["cache/**".parse().unwrap(), "team".parse().unwrap()],
        own: OwnNames::new(
            Some(&Url::parse("https://larder.example.com").unwrap()),
            &["127.0.0.1:5000".parse().unwrap(), "0.0.0.0:80".parse().unwrap(), "[::1]:5000".parse().unwrap()],
        ),
    }
}

fn spell(prefix: &str, path: &str, ns: &str) -> Spelling {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Spelling { prefix: given(prefix), path: path.to_owned(), ns: given(ns) }
}

#[track_caller]
fn check(rows: &[(&str, &str, &str, &str)]) {
    let names = names();
    for (prefix, path, ns, want) in rows {
        let got = match find(&spell(prefix, path, ns), &names) {
            Ok(key) => key.path(),
            Err(NameProblem::Unknown) => "unknown".to_owned(),
            Err(NameProblem::Invalid) => "invalid".to_owned(),
        };
        assert_eq!(&got, want, "/{prefix}/v2/{path}?ns={ns}");
    }
}

#[test]
fn a_host_is_found_wherever_it_stands() {
    check(&[
        ("", "ghcr.io/acme/app", "", "ghcr.io/acme/app"),
        ("ghcr.io", "acme/app", "", "ghcr.io/acme/app"),
        ("", "acme/app", "ghcr.io", "ghcr.io/acme/app"),
        ("", "acme/app", "GHCR.io", "ghcr.io/acme/app"),
        ("ghcr.io/acme", "app", "", "ghcr.io/acme/app"),
        ("", "ghcr.io/acme/app", "ghcr.io", "ghcr.io/acme/app"),
        ("ghcr.io", "ghcr.io/acme/app", "", "ghcr.io/acme/app"),
        ("", "127.0.0.1:5050/a/b", "", "127.0.0.1:5050/a/b"),
        ("", "localhost:5060/a", "", "localhost:5060/a"),
    ]);
}

#[test]
fn docker_hub_has_one_name_and_the_library() {
    check(&[
        ("", "alpine", "", "docker.io/library/alpine"),
        ("", "library/alpine", "", "docker.io/library/alpine"),
        ("", "acme/app", "", "docker.io/acme/app"),
        ("", "docker.io/alpine", "", "docker.io/library/alpine"),
        ("docker.io", "alpine", "", "docker.io/library/alpine"),
        ("", "alpine", "docker.io", "docker.io/library/alpine"),
        ("", "alpine", "registry-1.docker.io", "docker.io/library/alpine"),
        ("", "index.docker.io/acme/app", "", "docker.io/acme/app"),
        ("docker.io", "docker.io/library/alpine", "docker.io", "docker.io/library/alpine"),
        ("", "docker.io/docker.io/alpine", "", "docker.io/library/alpine"),
        ("", "app", "ghcr.io", "ghcr.io/app"),
        ("", "blobs", "", "docker.io/library/blobs"),
    ]);
}

#[test]
fn hosted_names_win_only_where_no_host_is_named() {
    check(&[
        ("", "cache/app", "", "_hosted/cache/app"),
        ("", "team", "", "_hosted/team"),
        ("", "cache/app", "docker.io", "docker.io/cache/app"),
        ("", "docker.io/cache/app", "", "docker.io/cache/app"),
        ("docker.io", "cache/app", "", "docker.io/cache/app"),
        ("", "cache/app", "larder.example.com", "_hosted/cache/app"),
        ("", "larder.example.com/cache/app", "", "_hosted/cache/app"),
        ("", "cache", "", "docker.io/library/cache"),
    ]);
}

#[test]
fn our_own_names_mean_that_none_was_given() {
    check(&[
        ("", "alpine", "127.0.0.1:5000", "docker.io/library/alpine"),
        ("", "alpine", "localhost:5000", "docker.io/library/alpine"),
        ("", "alpine", "localhost:80", "docker.io/library/alpine"),
        ("", "alpine", "127.0.0.1:80", "docker.io/library/alpine"),
        ("", "alpine", "[::1]:5000", "docker.io/library/alpine"),
        ("", "alpine", "Larder.example.com", "docker.io/library/alpine"),
        ("", "alpine", "larder.example.com:443", "docker.io/library/alpine"),
        ("larder.example.com", "ghcr.io/acme/app", "", "ghcr.io/acme/app"),
        ("", "larder.example.com/ghcr.io/acme/app", "", "ghcr.io/acme/app"),
        ("", "127.0.0.1:5000/alpine", "", "docker.io/library/alpine"),
        ("", "127.0.0.1:5000/alpine", "ghcr.io", "ghcr.io/alpine"),
    ]);
}

#[test]
fn a_host_that_is_not_configured_is_unknown() {
    check(&[
        ("", "evil.example/x", "", "unknown"),
        ("", "evil.example/x", "larder.example.com", "unknown"),
        ("evil.example", "x", "", "unknown"),
        ("", "x", "evil.example", "unknown"),
        ("", "evil.example/x", "evil.example", "unknown"),
        ("", "x", "169.254.169.254", "unknown"),
        ("", "x", "http://evil.example", "unknown"),
        ("", "x", "../x", "unknown"),
        ("", "127.0.0.1:6000/x", "", "unknown"),
        ("", "localhost/x", "", "unknown"),
        ("", "evil.example", "", "unknown"),
        ("foo", "x", "", "unknown"),
        ("", "larder.example.com:5000/x", "", "unknown"),
    ]);
}

#[test]
fn a_path_wins_over_ns() {
    check(&[
        ("ghcr.io", "acme/app", "docker.io", "ghcr.io/acme/app"),
        ("ghcr.io", "acme/app", "evil.example", "ghcr.io/acme/app"),
        ("", "ghcr.io/acme/app", "docker.io", "ghcr.io/acme/app"),
        ("", "ghcr.io/acme/app", "evil.example", "ghcr.io/acme/app"),
        // A repository of gcr.io may begin with a domain; what is configured wins, what is not belongs to the name.
        ("", "google.com/project/image", "gcr.io", "gcr.io/google.com/project/image"),
        ("gcr.io", "google.com/project/image", "", "gcr.io/google.com/project/image"),
        ("", "gcr.io/google.com/project/image", "", "gcr.io/google.com/project/image"),
    ]);
}

#[test]
fn what_is_no_name_is_invalid() {
    check(&[
        ("", "", "", "invalid"),
        ("", "Alpine", "", "invalid"),
        ("", "a/../b", "", "invalid"),
        ("", "a//b", "", "invalid"),
        ("", "a%2fb", "", "invalid"),
        ("", "_hosted/cache/app", "", "invalid"),
        ("", "ghcr.io/", "", "invalid"),
        ("ghcr.io", "", "", "invalid"),
        ("", "cache/../app", "", "invalid"),
        ("", "127.0.0.1:6000/x", "ghcr.io", "invalid"),
        ("", &"a".repeat(300), "", "invalid"),
    ]);
}

fn component() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,8}(-[a-z0-9]{1,4})?"
}

proptest! {
    #[test]
    fn the_three_spellings_agree(
        host in prop::sample::select(vec!["docker.io", "ghcr.io", "gcr.io", "127.0.0.1:5050", "index.docker.io"]),
        parts in prop::collection::vec(component(), 1..4),
    ) {
        let (names, path) = (names(), parts.join("/"));
        prop_assume!(!path.starts_with("localhost"));
        let key = find(&spell("", &format!("{host}/{path}"), ""), &names).unwrap();
        prop_assert_eq!(&find(&spell(host, &path, ""), &names).unwrap(), &key);
        prop_assert_eq!(&find(&spell("", &path, host), &names).unwrap(), &key);
        prop_assert!(!key.is_hosted());
        // The canonical spelling finds itself.
        prop_assert_eq!(find(&spell("", &key.to_string(), ""), &names).unwrap(), key);
    }

    #[test]
    fn nothing_leads_to_a_registry_that_is_not_configured(
        prefix in proptest::option::of("[a-z0-9.:/_\\[\\]-]{0,24}"),
        path in "\\PC{0,40}|[a-z0-9.:/_-]{0,60}",
        ns in proptest::option::of("\\PC{0,30}|[a-z0-9.:]{0,24}"),
    ) {
        let names = names();
        if let Ok(key) = find(&Spelling { prefix, path, ns }, &names) {
            prop_assert!(key.is_hosted() || names.registries.contains(&key.registry));
        }
    }
}
