//! Tables of what the clients send, and properties over everything else.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::repository;
use crate::repository::Names;
use crate::repository::OwnNames;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn get(path: &str) -> Result<Route, Problem> {
    asked(&Method::GET, path)
}

fn asked(method: &Method, target: &str) -> Result<Route, Problem> {
    match target.split_once('?') {
        Some((path, query)) => parse(method, path, Some(query)),
        None => parse(method, target, None),
    }
}

fn spelling(prefix: Option<&str>, path: &str, ns: Option<&str>) -> Spelling {
    Spelling { prefix: prefix.map(Into::into), path: path.into(), ns: ns.map(Into::into) }
}

#[test]
fn the_verb_is_found_from_the_right() {
    for (path, prefix, name, reference) in [
        ("/v2/app/manifests/1", None, "app", "1"),
        ("/v2/docker.io/app/manifests/1", None, "docker.io/app", "1"),
        ("/docker.io/v2/library/app/manifests/1", Some("docker.io"), "library/app", "1"),
        ("/ghcr.io/acme/v2/app/manifests/1", Some("ghcr.io/acme"), "app", "1"),
        ("/v2/team/blobs/manifests/manifests", None, "team/blobs", "manifests"),
        ("/v2/manifests/manifests/blobs", None, "manifests", "blobs"),
        ("/v2/a/v2/manifests/v2", None, "a/v2", "v2"),
        ("/v2/blobs/uploads/manifests/x", None, "blobs/uploads", "x"),
        ("/v2/localhost%3A5000/app/manifests/1", None, "localhost:5000/app", "1"),
    ] {
        let Ok(Route::Manifest { place, reference: found, verb, .. }) = get(path) else {
            panic!("{path}: {:?}", get(path))
        };
        assert_eq!(place.spelling, spelling(prefix, name, None), "{path}");
        assert_eq!((found.to_string(), verb), (reference.to_owned(), Verb::Get), "{path}");
    }
    let blob = format!("/v2/team/blobs/blobs/{DIGEST}");
    let Ok(Route::Blob { place, .. }) = get(&blob) else { panic!("{:?}", get(&blob)) };
    assert_eq!(place.spelling.path, "team/blobs");
    let encoded = format!("/v2/app/blobs/{}", DIGEST.replace(':', "%3a"));
    assert!(matches!(get(&encoded), Ok(Route::Blob { .. })));
    let Ok(Route::Tags { place, page }) = get("/v2/tags/list/tags/list?n=7&last=v1&ns=ghcr.io") else { panic!() };
    assert_eq!(place.spelling, spelling(None, "tags/list", Some("ghcr.io")));
    assert_eq!((page.count, page.after), (Some(7), Some("v1".parse().unwrap())));
    let referrers = format!("/v2/app/referrers/{DIGEST}?artifactType=a%2Fb");
    let Ok(Route::Referrers { artifact_type, .. }) = get(&referrers) else { panic!() };
    assert_eq!(artifact_type.as_deref(), Some("a/b"));
}

#[test]
fn the_ping_is_answered_in_every_spelling() {
    for path in ["/v2", "/v2/", "/ghcr.io/v2/", "/run/7/v2/", "/v2/run/7/", "/v2/run/7", "/t/abc/run/7/ghcr.io/v2/"] {
        assert!(matches!(get(path), Ok(Route::Version(_))), "{path}: {:?}", get(path));
    }
    assert_eq!(asked(&Method::POST, "/v2/"), Err(Problem::Method("GET, HEAD")));
}

#[test]
fn runs_and_tokens_are_taken_off_once_on_either_side() {
    for path in [
        "/t/abc/run/42/ghcr.io/v2/acme/app/manifests/1",
        "/run/42/ghcr.io/v2/t/abc/acme/app/manifests/1",
        "/t/abc/ghcr.io/v2/run/42/acme/app/manifests/1",
    ] {
        let Ok(Route::Manifest { place, .. }) = get(path) else { panic!("{path}: {:?}", get(path)) };
        assert_eq!(place.run.as_deref(), Some("42"), "{path}");
        assert_eq!(place.token.as_ref().map(Token::as_str), Some("abc"), "{path}");
        assert_eq!(place.spelling, spelling(Some("ghcr.io"), "acme/app", None), "{path}");
    }
    let Ok(Route::Manifest { place, .. }) = get("/v2/t/abc/run/v2/ghcr.io/acme/app/manifests/1") else { panic!() };
    assert_eq!((place.run.as_deref(), &*place.spelling.path), (Some("v2"), "ghcr.io/acme/app"));
    assert!(!format!("{place:?}").contains("abc"));
    for path in ["/run/1/v2/run/2/app/manifests/1", "/v2/t/a/t/b/app/manifests/1", "/v2/t/a%2fb/app/manifests/1"] {
        assert_eq!(get(path), Err(Problem::Name), "{path}");
    }
}

#[test]
fn what_no_name_can_hold_is_refused() {
    for path in [
        "/v2/../etc/passwd/manifests/1",
        "/v2/a/..%2f..%2fb/manifests/1",
        "/v2/a/%2e%2e/b/manifests/1",
        "/v2/a%252fb/manifests/1",
        "/v2//x/manifests/1",
        "/v2/x//manifests/1",
        "/v2/./x/manifests/1",
        "//v2/x/manifests/1",
        "/v2/team/app/manifests/a%00b",
        "/v2/team\\app/manifests/1",
        "/v2/é/manifests/1",
        "/v2/a%/manifests/1",
        "/v2/a%4/manifests/1",
        "/v2/manifests/1",
        "/v2/a b/manifests/1",
        &format!("/v2/{}/manifests/1", "a/".repeat(2_000)),
    ] {
        assert_eq!(get(path), Err(Problem::Name), "{path}");
    }
    for (path, problem) in [
        ("/v2/app/manifests/sha256:xyz", Problem::Digest),
        ("/v2/app/blobs/sha256:../..", Problem::Name),
        ("/v2/app/blobs/latest", Problem::Digest),
        ("/v2/app/blobs/md5:abc", Problem::Digest),
        ("/v2/app/referrers/latest", Problem::Digest),
        ("/v2/app/manifests/-x", Problem::Tag),
        ("/v2/app/manifests/", Problem::Tag),
        ("/v2/app/tags/list?n=-1", Problem::Query("n")),
        ("/v2/app/tags/list?n=abc", Problem::Query("n")),
        ("/v2/app/tags/list?last=a/b", Problem::Query("last")),
        ("/v2/app/manifests/1?ns=a%20b", Problem::Query("ns")),
        ("/v2/_catalog", Problem::Nowhere),
        ("/v2/app", Problem::Nowhere),
        ("/v1/app", Problem::Nowhere),
        ("/", Problem::Nowhere),
        ("", Problem::Nowhere),
        ("*", Problem::Nowhere),
        ("/api/v1/nothing", Problem::Nowhere),
        ("/api/v1/tags", Problem::Query("repository")),
        ("/client-config/../x", Problem::Nowhere),
    ] {
        assert_eq!(get(path), Err(problem), "{path}");
    }
    let long = format!("/v2/app/manifests/{}", "t".repeat(129));
    assert_eq!(get(&long), Err(Problem::Tag));
}

#[test]
fn a_count_beyond_every_number_is_large() {
    let Ok(Route::Tags { page, .. }) = get("/v2/app/tags/list?n=99999999999999999999999") else { panic!() };
    assert_eq!(page.count, Some(u64::MAX));
    let Ok(Route::Tags { page, .. }) = get("/v2/app/tags/list?n=0&n=5") else { panic!() };
    assert_eq!(page.count, Some(0));
}

#[test]
fn pushes_are_read_as_such() {
    for (method, path) in [
        (Method::POST, "/v2/app/blobs/uploads/"),
        (Method::POST, "/v2/app/blobs/uploads"),
        (Method::PATCH, "/v2/app/blobs/uploads/abc"),
        (
            Method::PUT,
            "/v2/app/blobs/uploads/abc?digest=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (Method::GET, "/v2/app/blobs/uploads/abc"),
        (Method::DELETE, "/v2/app/blobs/uploads/abc"),
    ] {
        assert!(matches!(asked(&method, path), Ok(Route::Upload { .. })), "{method} {path}");
    }
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let begin = |query: &str| match asked(&Method::POST, &format!("/v2/app/blobs/uploads/?{query}")) {
        Ok(Route::Upload { upload: Upload::Begin(begin), .. }) => Ok(begin),
        Ok(other) => panic!("{query}: {other:?}"),
        Err(problem) => Err(problem),
    };
    let (digest, from) = (empty.parse().ok(), Some("a/b".to_owned()));
    assert_eq!(begin(&format!("mount={empty}&from=a/b")), Ok(Begin { mount: digest, from, ..Begin::default() }));
    assert_eq!(begin(&format!("digest={empty}")), Ok(Begin { digest, ..Begin::default() }));
    let algorithm = Some(Algorithm::Sha512);
    assert_eq!(begin("digest-algorithm=sha512"), Ok(Begin { algorithm, ..Begin::default() }));
    for wrong in ["mount=x&from=y", "digest=sha256:abc", "digest=md5:abc", "digest-algorithm=md5"] {
        assert_eq!(begin(wrong), Err(Problem::Digest), "{wrong}");
    }
    assert_eq!(asked(&Method::PUT, "/v2/app/blobs/uploads/abc"), Err(Problem::Digest));
    let tagged = |count: usize| {
        let tags: Vec<String> = (0..count).map(|n| format!("tag=v{n}")).collect();
        asked(&Method::PUT, &format!("/v2/app/manifests/{empty}?{}", tags.join("&")))
    };
    assert!(matches!(tagged(10), Ok(Route::Manifest { tags, .. }) if tags.len() == 10));
    assert_eq!(tagged(17), Err(Problem::TooLong));
    assert_eq!(asked(&Method::PUT, &format!("/v2/app/manifests/{empty}?tag=a/b")), Err(Problem::Tag));
    let put = asked(&Method::PUT, "/v2/app/manifests/1");
    assert!(matches!(put, Ok(Route::Manifest { verb: Verb::Put, .. })));
    assert_eq!(asked(&Method::PATCH, "/v2/app/manifests/1"), Err(Problem::Method("GET, HEAD, PUT, DELETE")));
    assert_eq!(asked(&Method::GET, "/api/v1/refresh"), Err(Problem::Method("POST")));
}

#[test]
fn our_own_paths_are_ours() {
    assert_eq!(get("/healthz"), Ok(Route::Healthy));
    assert_eq!(get("/readyz"), Ok(Route::Ready));
    assert_eq!(get("/metrics"), Ok(Route::Metrics));
    assert_eq!(get("/client-config/docker"), Ok(Route::ClientConfig("docker".into())));
    assert_eq!(asked(&Method::POST, "/hooks/hub-1"), Ok(Route::Hook("hub-1".into())));
    assert_eq!(get("/hooks/hub"), Err(Problem::Method("POST")));
    for path in ["/hooks/", "/hooks/a/b", "/hooks/HUB", "/hooks/%61"] {
        assert_eq!(asked(&Method::POST, path), Err(Problem::Nowhere), "{path}");
    }
    assert_eq!(get("/api/v1/status"), Ok(Route::Api(Api::Status)));
    let tags = Api::Tags { repository: "ghcr.io/a/b".into() };
    assert_eq!(get("/api/v1/tags?repository=ghcr.io%2Fa/b"), Ok(Route::Api(tags)));
    let report = Api::Report { since: Some("7d".into()), repository: Some("cache/app".into()) };
    assert_eq!(get("/api/v1/report?since=7d&repository=cache/app"), Ok(Route::Api(report)));
    assert_eq!(get("/api/v1/report"), Ok(Route::Api(Api::Report { since: None, repository: None })));
    let id = || "Ci_7.1~x-".to_owned();
    assert_eq!(get("/api/v1/runs"), Ok(Route::Api(Api::Runs)));
    assert_eq!(get("/api/v1/runs/Ci_7.1~x-"), Ok(Route::Api(Api::Run { id: id() })));
    assert_eq!(asked(&Method::DELETE, "/api/v1/runs/Ci_7.1~x-"), Ok(Route::Api(Api::EndRun { id: id() })));
    assert_eq!(asked(&Method::POST, "/api/v1/runs/a"), Err(Problem::Method("GET, HEAD, DELETE")));
    for nothing in ["/api/v1/runs/", "/api/v1/runs/a/b", "/api/v1/runs/..", "/api/v1/runs/a%2eb"] {
        assert_eq!(get(nothing), Err(Problem::Nowhere), "{nothing}");
    }
    assert_eq!(asked(&Method::POST, "/api/v1/gc"), Ok(Route::Api(Api::Gc)));
    assert_eq!(asked(&Method::POST, "/api/v1/scrub"), Ok(Route::Api(Api::Scrub)));
}

fn names() -> Names {
    let registries = ["docker.io", "ghcr.io", "localhost:5000"].map(|host| host.parse().unwrap());
    Names {
        registries: BTreeSet::from(registries),
        default: "docker.io".parse().unwrap(),
        hosted: Vec::new(),
        own: OwnNames::default(),
    }
}

proptest! {
    #[test]
    fn no_request_line_panics(method in "[A-Z]{1,8}", path in ".{0,200}", query in proptest::option::of(".{0,200}")) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let _ = parse(&method, &path, query.as_deref());
        let _ = parse(&method, &format!("/{path}"), query.as_deref());
    }

    #[test]
    fn no_path_of_segments_panics_and_none_climbs(
        segments in proptest::collection::vec(
            prop_oneof![
                Just("v2".to_owned()), Just("t".into()), Just("run".into()), Just("blobs".into()), Just("manifests".into()),
                Just("uploads".into()), Just("tags".into()), Just("list".into()), Just("..".into()), Just("%2e%2e".into()),
                Just(DIGEST.to_owned()), Just(String::new()), "[a-z0-9.%:_-]{0,6}",
            ],
            0..9,
        ),
    ) {
        let path = format!("/{}", segments.join("/"));
        if let Ok(route) = get(&path) {
            let place = route.place().cloned().unwrap_or_default();
            let all = format!("{}/{}", place.spelling.prefix.unwrap_or_default(), place.spelling.path);
            prop_assert!(all.split('/').all(|part| part != ".." && part != "."), "{path} became {all}");
        }
    }

    #[test]
    fn three_spellings_are_one_repository(
        host in prop_oneof![Just("docker.io"), Just("ghcr.io"), Just("localhost:5000")],
        name in "[a-z0-9]{1,8}(/(blobs|tags|manifests|v2|uploads|[a-z0-9]{1,8})){0,3}",
        tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
        run in proptest::option::of("[a-z0-9]{1,8}"),
    ) {
        // Reserved first segments: what follows them is a token or a run.
        let first = name.split('/').next().unwrap_or_default();
        prop_assume!(!matches!(first, "t" | "run") && name != "v2");
        let run = run.map(|run| format!("/run/{run}")).unwrap_or_default();
        let spellings = [
            format!("/v2{run}/{host}/{name}/manifests/{tag}"),
            format!("{run}/v2/{host}/{name}/manifests/{tag}"),
            format!("{run}/{host}/v2/{name}/manifests/{tag}"),
            format!("{run}/v2/{name}/manifests/{tag}?ns={host}"),
        ];
        let mut found = Vec::new();
        for spelling in &spellings {
            let Ok(Route::Manifest { place, reference, .. }) = get(spelling) else {
                return Err(TestCaseError::fail(format!("{spelling}: {:?}", get(spelling))));
            };
            found.push((repository::find(&place.spelling, &names()).unwrap(), reference, place.run));
        }
        prop_assert!(found.windows(2).all(|two| two[0] == two[1]), "{spellings:?}: {found:?}");
    }
}
