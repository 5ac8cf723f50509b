//! Paths that lead nowhere: whatever a client writes, nothing is asked of another host and nothing lies outside the
//! folder.

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::image;

/// The status of a request whose path is sent as it stands, byte for byte.
async fn status(larder: &Larder, path: &str) -> u16 {
    let mut stream = tokio::net::TcpStream::connect(larder.address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_leads_out_of_the_folder_or_to_another_host() {
    let upstream = Upstream::start().await;
    upstream.add("library/app", "1", &image(350, &[10]));
    let larder = Larder::before(&upstream).await;
    let long = "a".repeat(256);
    let names = [
        "..",
        ".",
        "%2e%2e",
        "%2E%2E/x",
        "library%2fapp",
        "library%252fapp",
        "lib\\app",
        "lib%5capp",
        "library%00app",
        "/library/app",
        "library//app",
        "library/app/..",
        "_upload",
        "_blobs/x",
        "library/_x",
        "UPPER",
        "a___b",
        "-a",
        "a-",
        "%c3%bc",
        "a b",
        "a%20b",
        "t/",
        "run/..",
        "run/x/run/y",
        "t/x/t/y",
        &long,
        "[::1]/x",
        "a;b",
        "a?b",
        "a%",
    ];
    for name in names {
        for rest in ["manifests/1", "tags/list", "blobs/uploads/../x"] {
            let seen = status(&larder, &format!("/v2/{name}/{rest}")).await;
            assert!(matches!(seen, 400 | 404), "{name}/{rest}: {seen}");
        }
    }
    for host in [
        "evil.test",
        "127.0.0.1:1",
        "localhost",
        "169.254.169.254",
        "docker.io.",
        "docker.io:443",
        "user@docker.io",
        "[::1]",
    ] {
        for path in [
            format!("/v2/{host}/library/app/manifests/1"),
            format!("/{host}/v2/library/app/manifests/1"),
            format!("/v2/library/app/manifests/1?ns={host}"),
            format!("/v2/library/app/manifests/1?ns=http://{host}/"),
        ] {
            let seen = status(&larder, &path).await;
            assert!(matches!(seen, 400 | 404), "{path}: {seen}");
        }
    }
    assert_eq!(upstream.asked_anything(), 0, "{:?}", upstream.asked(|_| true));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tag_or_digest_leads_out_of_the_folder() {
    let upstream = Upstream::start().await;
    upstream.add("library/app", "1", &image(350, &[10]));
    let larder = Larder::before(&upstream).await;
    let long = "a".repeat(256);
    for reference in ["..", "%2e%2e", "-x", ".x", "a%0d%0ab", "a%20b", &long, "sha256:..", "sha256:xyz", "md5:abc"] {
        assert_eq!(status(&larder, &format!("/v2/library/app/manifests/{reference}")).await, 400, "{reference}");
    }
    let upper = format!("sha256:{}", "A".repeat(64));
    let (short, other) = (format!("sha256:{}", "a".repeat(63)), format!("sha512:{}", "a".repeat(64)));
    for digest in [&*upper, &short, &other, "sha256:", ":", "sha256:..%2f..", "sha256:../../x"] {
        for verb in ["blobs", "referrers"] {
            assert_eq!(status(&larder, &format!("/v2/library/app/{verb}/{digest}")).await, 400, "{verb} {digest}");
        }
    }
    assert_eq!(upstream.asked_anything(), 0, "{:?}", upstream.asked(|_| true));
    let beside: Vec<_> =
        std::fs::read_dir(larder.data().parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside.len(), 2, "the data and the configuration: {beside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_a_request_says_chooses_no_repository() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let (first, second) = (image(351, &[100]), image(352, &[100]));
    one.add("library/x", "1", &first);
    other.add("library/x", "1", &second);
    let config = format!(
        r#"{{"upstreams": {{"docker.io": {{"endpoints": ["{}"]}}, "b.test": {{"endpoints": ["{}"]}}}}}}"#,
        one.url(),
        other.url()
    );
    let larder = Larder::with(&config).await;
    for forged in [
        ("X-Forwarded-Host", "b.test"),
        ("X-Forwarded-Prefix", "/b.test"),
        ("X-Original-URL", "/v2/b.test/library/x/manifests/1"),
        ("Forwarded", "host=b.test"),
        ("OCI-Namespace", "b.test"),
        ("Accept", "text/html, application/vnd.oci.image.index.v1+json;q=0.1"),
        ("Accept-Encoding", "zstd;q=1.0,gzip"),
    ] {
        for (path, want) in [
            ("/v2/library/x/manifests/1", &first),
            ("/v2/b.test/library/x/manifests/1", &second),
            ("/b.test/v2/library/x/manifests/1", &second),
            ("/v2/library/x/manifests/1?ns=b.test", &second),
        ] {
            let answer = larder.ask("GET", path, &[forged]).await;
            assert!(answer.status == 200 && answer.body[..] == want.manifest[..], "{path} {forged:?}");
            assert_eq!(answer.header("content-encoding"), "");
        }
        larder.settled().await;
    }
    // One is not reached through the other.
    assert_eq!(larder.blob("library/x", &second.blob(1).0).await.status, 404);
    assert_eq!(larder.manifest("b.test/library/x", &first.digest.to_string()).await.status, 404);
    let manifests = |upstream: &Upstream| upstream.asked(|s| s.path.ends_with("/manifests/1")).len();
    assert_eq!((manifests(&one), manifests(&other)), (1, 1), "equal questions are one");
}
