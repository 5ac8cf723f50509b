use futures_util::StreamExt;

use super::server::Asked;
use super::server::Reply;
use super::server::Server;
use super::server::ask;
use super::server::deps;
use super::server::open;
use super::server::reply;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::Reference;
use crate::upstream::Error;
use crate::upstream::Fault;
use crate::upstream::Incoming;
use crate::upstream::NoConnection;
use crate::upstream::Remote;
use crate::upstream::Wanted;

const BYTES: &[u8] = br#"{"schemaVersion":2}"#;

fn tag() -> Reference {
    "1".parse().unwrap()
}

fn manifest(bytes: &'static [u8]) -> Reply {
    reply(200).header("content-type", MediaType::OCI_MANIFEST).body(bytes)
}

fn digest() -> Digest {
    Digest::of(BYTES)
}

async fn read(incoming: Incoming) -> (Vec<u8>, Option<Error>) {
    let (mut bytes, mut body) = (Vec::new(), incoming.body);
    while let Some(item) = body.next().await {
        match item {
            Ok(more) => bytes.extend_from_slice(&more),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

#[tokio::test]
async fn a_manifest_comes_as_it_is() {
    let server =
        Server::start(|_| manifest(BYTES).header("docker-content-digest", Digest::of(BYTES).to_string())).await;
    let found = open(&server.config()).manifest(&ask("a/b"), &tag()).await.unwrap().unwrap();
    assert_eq!((&found.bytes[..], found.content_type.as_str()), (BYTES, MediaType::OCI_MANIFEST));
    assert_eq!(found.digest, Some(digest()));
    let [asked] = &server.asked()[..] else { panic!("one request") };
    assert_eq!((asked.path.as_str(), asked.header("accept-encoding")), ("/v2/a/b/manifests/1", Some("identity")));
    let accept = asked.header("accept").unwrap();
    for kind in [MediaType::OCI_INDEX, MediaType::OCI_MANIFEST, MediaType::DOCKER_LIST, MediaType::DOCKER_MANIFEST] {
        assert!(accept.contains(kind), "{accept}");
    }
    assert!(!accept.contains("distribution.manifest.v1"));
}

#[tokio::test]
async fn what_is_no_manifest_can_not_be_used() {
    type Case = (&'static str, fn() -> Reply);
    let cases: [Case; 10] = [
        ("HTML", || reply(200).header("content-type", "text/html").body("<html>")),
        ("JSON of no type", || reply(200).header("content-type", "application/json").body(BYTES)),
        ("no type", || reply(200).body(BYTES)),
        ("schema 1", || {
            reply(200).header("content-type", "application/vnd.docker.distribution.manifest.v1+json").body(BYTES)
        }),
        ("truncated JSON", || manifest(b"{\"a\":")),
        ("UTF-16", || manifest(b"\xff\xfe{\x00}\x00")),
        ("another digest than it says", || {
            manifest(BYTES).header("docker-content-digest", Digest::of(b"x").to_string())
        }),
        ("no digest", || manifest(BYTES).header("docker-content-digest", "sha256:../../x")),
        ("encoded", || manifest(BYTES).header("content-encoding", "gzip")),
        ("too large", || reply(200).header("content-type", MediaType::OCI_MANIFEST).body(vec![b' '; 128 << 10])),
    ];
    for (name, script) in cases {
        let server = Server::start(move |_| script()).await;
        let mut config = server.config();
        config.limits.manifest_bytes = 64 << 10;
        let error = open(&config).manifest(&ask("a"), &tag()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Unusable, "{name}: {error:?}");
    }
}

#[tokio::test]
async fn an_endless_manifest_is_left_at_its_bound() {
    let endless =
        || (0..64).fold(reply(200).header("content-type", MediaType::OCI_MANIFEST), |r, _| r.chunk(vec![b' '; 4096]));
    let server = Server::start(move |_| endless().stall()).await;
    let mut config = server.config();
    config.limits.manifest_bytes = 64 << 10;
    assert_eq!(open(&config).manifest(&ask("a"), &tag()).await.unwrap_err().fault(), Fault::Unusable);
}

#[tokio::test]
async fn a_head_resolves_a_tag() {
    let server = Server::start(|asked| match &*asked.path {
        "/v2/a/manifests/1" => manifest(BYTES).header("docker-content-digest", Digest::of(BYTES).to_string()),
        "/v2/a/manifests/2" => manifest(BYTES),
        _ => reply(404),
    })
    .await;
    let upstream = open(&server.config());
    let found = upstream.resolve(&ask("a"), &tag()).await.unwrap().unwrap();
    assert_eq!((found.digest, found.size), (digest(), Some(BYTES.len() as u64)));
    let error = upstream.resolve(&ask("a"), &"2".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Unusable);
    assert!(upstream.resolve(&ask("a"), &"3".parse().unwrap()).await.unwrap().is_none());
    assert!(server.asked().iter().all(|asked| asked.method == "HEAD"));
}

#[tokio::test]
async fn a_redirect_loses_the_authorization_wherever_it_leads() {
    let cdn = Server::start(|_| reply(200).body("layer")).await;
    let target = format!("{}/signed?secret=1", cdn.url());
    let server = Server::start(move |asked| match (&*asked.path, asked.header("authorization")) {
        (_, None) => reply(401).header("www-authenticate", "Basic realm=\"x\""),
        (_, Some(_)) => reply(307).header("location", &target),
    })
    .await;
    let mut config = server.config();
    config.credential = Some(super::auth::basic("ci", "hunter2"));
    let refused = open(&config).blob(&ask("a"), &digest(), &Wanted::default()).await.unwrap_err();
    assert_eq!(refused.fault(), Fault::AddressRefused, "another port is another origin");
    assert!(cdn.asked().is_empty() && !format!("{refused:?}").contains("secret"));

    config.may_connect_to = vec!["127.0.0.0/8".parse().unwrap()];
    let incoming = open(&config).blob(&ask("a"), &digest(), &Wanted::default()).await.unwrap().unwrap();
    assert_eq!((incoming.total, read(incoming).await.0), (Some(5), b"layer".to_vec()));
    let [asked] = &cdn.asked()[..] else { panic!("one request") };
    assert_eq!((asked.header("authorization"), asked.header("cookie")), (None, None));
}

#[tokio::test]
async fn redirects_that_must_not_be_followed() {
    for location in ["ftp://a.test/", "http://user@127.0.0.1/", "http://", "", "file:///etc/passwd"] {
        let server = Server::start(move |_| reply(302).header("location", location)).await;
        let mut config = server.config();
        config.may_connect_to = vec!["127.0.0.0/8".parse().unwrap()];
        let error = open(&config).blob(&ask("a"), &digest(), &Wanted::default()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Unusable, "{location}: {error:?}");
    }
    let server = Server::start(|asked| reply(307).header("location", format!("{}x", asked.path))).await;
    let error = open(&server.config()).blob(&ask("a"), &digest(), &Wanted::default()).await.unwrap_err();
    assert_eq!((error.fault(), server.asked().len()), (Fault::Unusable, 6));
}

#[tokio::test]
async fn private_addresses_are_refused_in_every_notation() {
    for target in [
        "http://127.0.0.1:1/",
        "http://0x7f000001:1/",
        "http://2130706433:1/",
        "http://[::1]:1/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://0.0.0.0:1/",
        "http://localhost:1/",
        "https://127.0.0.1:1/",
    ] {
        let server = Server::start(move |_| reply(307).header("location", target)).await;
        let error = open(&server.config()).blob(&ask("a"), &digest(), &Wanted::default()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::AddressRefused, "{target}: {error:?}");
    }
}

#[tokio::test]
async fn a_range_is_continued_under_its_validator() {
    let server = Server::start(|asked| match asked.header("range") {
        Some("bytes=2-") => reply(206).header("content-range", "bytes 2-4/5").header("etag", "\"v\"").body("yer"),
        Some("bytes=1-2") => reply(206).header("content-range", "bytes 1-2/5").body("ay"),
        Some("bytes=3-") => reply(206).header("content-range", "bytes 0-4/5").body("layer"),
        Some("bytes=9-") => reply(416).header("content-range", "bytes */5"),
        _ => reply(200).header("etag", "W/\"weak\"").body("layer"),
    })
    .await;
    let upstream = open(&server.config());
    let get = |start, end, same_as: Option<&str>| {
        let wanted = Wanted { start, end, same_as: same_as.map(str::to_owned) };
        let (upstream, ask) = (std::sync::Arc::clone(&upstream), ask("a"));
        async move { upstream.blob(&ask, &digest(), &wanted).await }
    };
    let whole = get(0, None, None).await.unwrap().unwrap();
    assert_eq!((whole.start, whole.total, whole.validator.clone()), (0, Some(5), None));
    let rest = get(2, None, Some("\"v\"")).await.unwrap().unwrap();
    assert_eq!((rest.start, rest.total, rest.validator.as_deref()), (2, Some(5), Some("\"v\"")));
    assert_eq!(read(rest).await.0, b"yer");
    let middle = get(1, Some(3), None).await.unwrap().unwrap();
    assert_eq!((middle.start, read(middle).await.0), (1, b"ay".to_vec()));
    assert_eq!(get(3, None, None).await.unwrap_err().fault(), Fault::Unusable, "another range than asked for");
    assert_eq!(get(9, None, None).await.unwrap_err().fault(), Fault::Unusable);
    let ignored = get(4, None, None).await.unwrap().unwrap();
    assert_eq!(ignored.start, 0, "one that knows no ranges begins anew");
    let continued: Vec<Asked> =
        server.asked().into_iter().filter(|asked| asked.headers.contains_key("if-range")).collect();
    assert_eq!(continued.len(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_never_ends_cleanly() {
    type Case = (&'static str, fn() -> Reply);
    let cases: [Case; 3] = [
        ("cut", || reply(200).header("content-length", "9").chunk("lay").cut()),
        ("cut without a length", || reply(200).chunk("lay").cut()),
        ("stalled", || reply(200).header("content-length", "9").chunk("lay").stall()),
    ];
    for (name, script) in cases {
        let server = Server::start(move |_| script()).await;
        let mut config = server.config();
        config.limits.stall = std::time::Duration::from_millis(200);
        let incoming = open(&config).blob(&ask("a"), &digest(), &Wanted::default()).await.unwrap().unwrap();
        let (bytes, error) = read(incoming).await;
        assert_eq!((&bytes[..], error.map(|error| error.fault())), (&b"lay"[..], Some(Fault::Broken)), "{name}");
    }
}

#[tokio::test]
async fn a_blob_has_its_bounds() {
    let server = Server::start(|asked| match &*asked.path {
        path if path.starts_with("/v2/html/") => reply(200).header("content-type", "text/html").body("<html>"),
        path if path.starts_with("/v2/large/") => reply(200).body("12345678"),
        _ => reply(200).chunk("1234").chunk("5678"),
    })
    .await;
    let mut config = server.config();
    config.limits.blob_bytes = 6;
    let upstream = open(&config);
    for name in ["html", "large"] {
        let error = upstream.blob(&ask(name), &digest(), &Wanted::default()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Unusable, "{name}");
    }
    let incoming = upstream.blob(&ask("endless"), &digest(), &Wanted::default()).await.unwrap().unwrap();
    let (bytes, error) = read(incoming).await;
    assert!(bytes.len() <= 6 && error.is_some());
}

#[tokio::test]
async fn a_head_that_does_not_know_a_blob_yet_is_followed_by_a_get() {
    let server = Server::start(|asked| match (asked.method.as_str(), &*asked.path) {
        (_, path) if path.starts_with("/v2/none/") => reply(404),
        ("HEAD", path) if path.starts_with("/v2/held/") => reply(200).header("content-length", "7"),
        ("HEAD", _) => reply(404),
        _ => reply(206).header("content-range", "bytes 0-0/5").body("l"),
    })
    .await;
    let upstream = open(&server.config());
    assert_eq!(upstream.blob_size(&ask("held"), &digest()).await.unwrap(), Some(7));
    assert_eq!(upstream.blob_size(&ask("chained"), &digest()).await.unwrap(), Some(5));
    assert_eq!(upstream.blob_size(&ask("none"), &digest()).await.unwrap(), None);
}

#[tokio::test]
async fn tags_come_in_pages_and_in_lexical_order() {
    let server = Server::start(|asked| match (&*asked.path, &*asked.query) {
        ("/v2/a/tags/list", "n=2") => {
            let link = "</v2/a/tags/list?last=2&n=2>; rel=\"next\"";
            reply(200).header("link", link).body(r#"{"name":"a","tags":["1","2"]}"#)
        }
        ("/v2/a/tags/list", "n=2&last=2") => reply(200).body(r#"{"name":"a","tags":["3","not a tag"]}"#),
        ("/v2/all/tags/list", _) => reply(200).body(r#"{"tags":["3","1","4","2"]}"#),
        ("/v2/nil/tags/list", _) => reply(200).body(r#"{"name":"a","tags":null}"#),
        ("/v2/html/tags/list", _) => reply(200).body("<html>"),
        _ => reply(404),
    })
    .await;
    let upstream = open(&server.config());
    let list = |name: &'static str, after: Option<&'static str>| {
        let upstream = std::sync::Arc::clone(&upstream);
        async move {
            let after = after.map(|tag| tag.parse().unwrap());
            let page = upstream.tags(&ask(name), after.as_ref(), 2).await?;
            Ok::<_, Error>(
                page.map(|page| (page.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), page.more)),
            )
        }
    };
    assert_eq!(list("a", None).await.unwrap(), Some(("1,2".to_owned(), true)));
    assert_eq!(list("a", Some("2")).await.unwrap(), Some(("3".to_owned(), false)));
    assert_eq!(list("all", Some("2")).await.unwrap(), Some(("3,4".to_owned(), false)));
    assert_eq!(list("all", None).await.unwrap(), Some(("1,2".to_owned(), true)));
    assert_eq!(list("nil", None).await.unwrap(), Some((String::new(), false)));
    assert_eq!(list("none", None).await.unwrap(), None);
    assert_eq!(list("html", None).await.unwrap_err().fault(), Fault::Unusable);
}

#[tokio::test]
async fn referrers_are_filtered_where_the_upstream_does_not() {
    let descriptor = |kind: &str| {
        format!(
            r#"{{"mediaType":"{}","digest":"{}","size":1,"artifactType":"{kind}"}}"#,
            MediaType::OCI_MANIFEST,
            Digest::of(kind.as_bytes())
        )
    };
    let body = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, descriptor("a/sbom"), descriptor("a/signature"));
    let server = Server::start(move |asked| match &*asked.path {
        path if path.starts_with("/v2/a/referrers/") => {
            reply(200).header("content-type", MediaType::OCI_INDEX).body(body.clone())
        }
        _ => reply(404),
    })
    .await;
    let upstream = open(&server.config());
    assert_eq!(upstream.referrers(&ask("a"), &digest(), None).await.unwrap().unwrap().len(), 2);
    let found = upstream.referrers(&ask("a"), &digest(), Some("a/sbom")).await.unwrap().unwrap();
    assert_eq!(found.len(), 1);
    assert!(upstream.referrers(&ask("b"), &digest(), None).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_not_allowed_is_not_asked() {
    let server = Server::start(|_| manifest(BYTES)).await;
    let mut config = server.config();
    config.allow = vec!["library/**".parse().unwrap()];
    config.deny = vec!["library/secret*".parse().unwrap()];
    let upstream = open(&config);
    for name in ["library/secret-x", "team/app"] {
        assert_eq!(upstream.manifest(&ask(name), &tag()).await.unwrap_err().fault(), Fault::NotAllowed);
        let blob = upstream.blob(&ask(name), &digest(), &Wanted::default()).await;
        assert_eq!(blob.unwrap_err().fault(), Fault::NotAllowed);
        assert_eq!(upstream.blob_size(&ask(name), &digest()).await.unwrap_err().fault(), Fault::NotAllowed);
    }
    assert!(server.asked().is_empty());
    assert!(upstream.manifest(&ask("library/app"), &tag()).await.unwrap().is_some());
}

#[tokio::test]
async fn an_authority_is_trusted_where_the_configuration_names_it() {
    let certificate = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = Server::start_tls(&certificate, |_| manifest(BYTES)).await;
    let mut config = super::server::config(&[&format!("https://{}", server.address)]);
    let error = open(&config).manifest(&ask("a"), &tag()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::NoConnection(NoConnection::Tls), "{error:?}");
    let file = |text: String| crate::config::Contents { path: "corp.pem".into(), bytes: text.into_bytes().into() };
    config.ca_file = Some(file(certificate.cert.pem()));
    assert!(open(&config).manifest(&ask("a"), &tag()).await.unwrap().is_some());
    config.ca_file = Some(file("nothing".to_owned()));
    assert!(Remote::open("reg.test", &config, &deps()).is_err(), "it is found out at start");
}

#[tokio::test]
async fn bytes_and_requests_are_counted() {
    let server =
        Server::start(|asked| if asked.path.contains("blobs") { reply(200).body("layer") } else { reply(404) }).await;
    let deps = deps();
    let upstream = Remote::open("reg.test", &server.config(), &deps).unwrap();
    let incoming = upstream.blob(&ask("a"), &digest(), &Wanted::default()).await.unwrap().unwrap();
    read(incoming).await;
    assert!(upstream.manifest(&ask("a"), &tag()).await.unwrap().is_none());
    let text = deps.metrics.encode();
    for line in [
        "larder_upstream_requests_total{upstream=\"reg.test\",kind=\"blob\",status=\"200\"} 1",
        "larder_upstream_requests_total{upstream=\"reg.test\",kind=\"manifest\",status=\"404\"} 1",
        "larder_upstream_received_bytes_total{upstream=\"reg.test\"} 5",
        "larder_upstream_up{upstream=\"reg.test\",part=\"registry\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
