//! `larder doctor`: the requests that each client would make, judged by the kind of their answers.
//!
//! It asks for an image that is surely absent: what counts is whether the answer is the upstream's (404, 403), or says
//! that the upstream is away. An upstream that does not answer is a remark: it is not this server that is ill.

use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;
use http::header::HeaderName;
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use serde_json::json;

use crate::config::Config;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::ask::Server;
use super::check::free_space;
use super::console;

/// How long one question may take; all are asked together, so that the whole stays below 15 s.
const PATIENCE: Duration = Duration::from_secs(11);
/// A repository and a tag that nobody has.
const ABSENT: &str = "larder/doctor-asks-for-what-is-absent";
/// What docker and containerd accept.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json, */*";
/// The version header of the registry API.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How clients reach the registry [default: the configuration's first address]
    #[arg(long)]
    url: Option<String>,
}

/// How much one finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Good,
    Remark,
    Wrong,
}

impl Weight {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Remark => "remark",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    weight: Weight,
    said: String,
}

fn finding(weight: Weight, said: impl Into<String>) -> Finding {
    Finding { weight, said: said.into() }
}

pub(super) async fn run(arguments: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    // Somebody else's server is looked at from a machine that may have no configuration, or another program's.
    let config = match (global.load(), &arguments.url) {
        (Ok(loaded), _) => loaded.config,
        (Err(_), Some(_)) if global.config.is_none() => Config::default(),
        (Err(error), _) => return Err(error),
    };
    let server = match (&arguments.url, config.listen.first()) {
        (Some(url), _) => Server::at(url, "--url")?,
        (None, Some(listen)) => Server::configured(&config, *listen, "--url")?,
        (None, None) => return Err(Error::Usage("there is no address to ask".to_owned())),
    };
    let mut findings = vec![version_check(&server).await?];
    let (clients, own) = tokio::join!(pulls(&server, &config), own_pages(&server));
    findings.extend(clients);
    findings.extend(own);
    if arguments.url.is_none() {
        findings.extend(space(&config));
    }
    let wrong = findings.iter().filter(|finding| finding.weight == Weight::Wrong).count();
    let remarks = findings.iter().filter(|finding| finding.weight == Weight::Remark).count();
    if console.json {
        let list: Vec<_> =
            findings.iter().map(|one| json!({ "weight": one.weight.word(), "said": one.said })).collect();
        console.document(&json!({ "url": server.url().as_str(), "healthy": wrong == 0, "findings": list }));
    } else {
        for one in &findings {
            console.result(&format!("{:<7} {}", one.weight.word(), one.said));
        }
        let sum = match (wrong, remarks) {
            (0, 0) => "everything is as it should be".to_owned(),
            (0, _) => format!("nothing is wrong; {remarks} remarks"),
            _ => format!("{wrong} wrong, {remarks} remarks"),
        };
        console.result(&sum);
    }
    Ok(if wrong == 0 { Outcome::Done } else { Outcome::Undone })
}

/// The first request of docker and podman. Nothing can be said about a server that does not answer it.
async fn version_check(server: &Server) -> Result<Finding, Error> {
    let answer = server.send(Method::GET, "/v2/", None, &[]).await?;
    let version = answer.headers.get(API_VERSION).and_then(|value| value.to_str().ok());
    let challenge = answer.headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    Ok(match (answer.status, version, challenge) {
        (StatusCode::OK, Some("registry/2.0"), _) => finding(Weight::Good, "/v2/ answers as a registry"),
        (StatusCode::UNAUTHORIZED, Some("registry/2.0"), Some(challenge)) if challenge.starts_with("Bearer ") => {
            finding(Weight::Good, "/v2/ sends clients to /token, which lets anybody in; access says what they may do")
        }
        (StatusCode::UNAUTHORIZED, Some("registry/2.0"), Some(_)) => finding(
            Weight::Remark,
            "/v2/ wants a credential: dockerd, which has none for a mirror, goes to the upstream",
        ),
        (StatusCode::UNAUTHORIZED, _, None) => {
            finding(Weight::Wrong, "/v2/ answers 401 without a challenge: clients do not know how to log in")
        }
        (StatusCode::OK | StatusCode::UNAUTHORIZED, ..) => {
            finding(Weight::Wrong, "/v2/ lacks Docker-Distribution-API-Version: registry/2.0; is a proxy in between?")
        }
        (status, ..) => finding(Weight::Wrong, format!("/v2/ answers {status}; podman drops a mirror for that")),
    })
}

/// A request as a client makes it.
#[derive(Debug)]
struct Pull {
    client: &'static str,
    host: String,
    method: Method,
    path: String,
}

/// Each client's way to an image of the default upstream, and one way to each other upstream.
fn requests(config: &Config) -> Vec<Pull> {
    let hub = &config.default_upstream;
    let pull = |client, host: &String, method, path: String| Pull { client, host: host.clone(), method, path };
    let mut pulls = vec![
        pull("dockerd", hub, Method::HEAD, format!("/v2/{ABSENT}/manifests/latest")),
        pull("containerd", hub, Method::HEAD, format!("/v2/{ABSENT}/manifests/latest?ns={hub}")),
        pull("containerd with a path", hub, Method::HEAD, format!("/{hub}/v2/{ABSENT}/manifests/latest?ns={hub}")),
        pull("BuildKit", hub, Method::HEAD, format!("/v2/{hub}/{ABSENT}/manifests/latest?ns={hub}")),
        pull("podman", hub, Method::GET, format!("/v2/{hub}/{ABSENT}/manifests/latest")),
    ];
    for host in config.upstreams.keys().filter(|host| *host != hub) {
        pulls.push(pull("any client", host, Method::HEAD, format!("/v2/{host}/{ABSENT}/manifests/latest")));
    }
    pulls
}

async fn pulls(server: &Server, config: &Config) -> Vec<Finding> {
    join_all(requests(config).into_iter().map(|pull| judge_pull(server, pull))).await
}

async fn judge_pull(server: &Server, pull: Pull) -> Finding {
    let headers = [(header::ACCEPT, ACCEPT)];
    let sent = server.send(pull.method.clone(), &pull.path, None, &headers);
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(answer)) => judge(&pull, answer.status, &answer.headers),
        Ok(Err(error)) => finding(Weight::Wrong, format!("{} asks for {}: {error}", pull.client, pull.path)),
        Err(_) => finding(Weight::Remark, format!("{} does not answer within {} s", pull.host, PATIENCE.as_secs())),
    }
}

/// What the kind of an answer says, where the image is surely absent.
fn judge(pull: &Pull, status: StatusCode, headers: &HeaderMap) -> Finding {
    let Pull { client, host, path, .. } = pull;
    let has = |name| headers.contains_key(name);
    match status {
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {
            finding(Weight::Good, format!("{client} reaches {host}, which answers"))
        }
        StatusCode::UNAUTHORIZED if has(header::WWW_AUTHENTICATE) => {
            finding(Weight::Good, format!("{client} is asked for a credential for {host}"))
        }
        StatusCode::TOO_MANY_REQUESTS => finding(
            Weight::Remark,
            format!("{host} answers 429: its pulls are used up; what is held is served, and a credential allows more"),
        ),
        StatusCode::SERVICE_UNAVAILABLE if !has(header::RETRY_AFTER) => {
            finding(Weight::Wrong, format!("{client} gets 503 for {host} without Retry-After"))
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => finding(
            Weight::Remark,
            format!(
                "{client} reaches larder, {host} does not answer ({}): what is held of it is served",
                status.as_u16()
            ),
        ),
        status => {
            finding(Weight::Wrong, format!("{client} asks for {path} and gets {status}, which no client expects"))
        }
    }
}

/// What the server says about itself.
async fn own_pages(server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, needs, what) in [
        ("/healthz", "", "the process says that it runs"),
        ("/readyz", "", "it says that it can serve what it holds"),
        ("/metrics", "larder_build_info", "the metrics are there"),
    ] {
        let page = tokio::time::timeout(PATIENCE, page(server, path)).await;
        findings.push(match page {
            Ok(Ok((StatusCode::OK, text))) if text.contains(needs) => {
                let remark = text.contains("read-only") || text.contains("full");
                if path == "/readyz" && remark {
                    finding(Weight::Remark, format!("{path} is ready and says: {}", text.trim()))
                } else {
                    finding(Weight::Good, format!("{path}: {what}"))
                }
            }
            Ok(Ok((status, text))) => {
                let text: String = text.chars().take(200).collect();
                finding(Weight::Wrong, format!("{path} answers {status}: {}", text.trim()))
            }
            Ok(Err(error)) => finding(Weight::Wrong, format!("{path}: {error}")),
            Err(_) => finding(Weight::Wrong, format!("{path} does not answer")),
        });
    }
    findings
}

async fn page(server: &Server, path: &str) -> Result<(StatusCode, String), Error> {
    let answer = server.send(Method::GET, path, None, &[]).await?;
    let body = Limited::new(answer.body, 16 << 20).collect().await;
    let body = body.map_err(|error| Error::Refused(format!("the answer broke off: {error}")))?;
    Ok((answer.status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

/// Whether the disk has room. Only the machine that the server runs on can tell.
fn space(config: &Config) -> Option<Finding> {
    let free = free_space(&config.store.path)?;
    let folder = config.store.path.display();
    Some(if free <= config.store.reserve_free {
        finding(Weight::Wrong, format!("{folder} has {} free: nothing more is stored; make room", console::size(free)))
    } else {
        finding(Weight::Good, format!("{folder} has {} free", console::size(free)))
    })
}

#[cfg(test)]
mod tests {
    use super::Weight;
    use super::judge;
    use super::requests;
    use crate::config::Config;
    use http::HeaderMap;
    use http::HeaderValue;
    use http::StatusCode;
    use http::header;

    #[test]
    fn an_answer_is_judged_by_its_kind() {
        let pulls = requests(&Config::default());
        let pull = pulls.first().expect("one");
        for (status, name, weight) in [
            (404, None, Weight::Good),
            (403, None, Weight::Good),
            (401, Some(header::WWW_AUTHENTICATE), Weight::Good),
            (401, None, Weight::Wrong),
            (429, None, Weight::Remark),
            (503, Some(header::RETRY_AFTER), Weight::Remark),
            (503, None, Weight::Wrong),
            (502, None, Weight::Remark),
            (504, None, Weight::Remark),
            (200, None, Weight::Wrong),
            (500, None, Weight::Wrong),
            (307, None, Weight::Wrong),
        ] {
            let headers: HeaderMap = name.into_iter().map(|name| (name, HeaderValue::from_static("1"))).collect();
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(judge(pull, status, &headers).weight, weight, "{status}");
        }
    }

    #[test]
    fn every_client_asks_in_its_own_spelling() {
        let pulls = requests(&Config::default());
        let paths: Vec<String> = pulls.iter().map(|pull| format!("{} {}", pull.method, pull.path)).collect();
        let name = super::ABSENT;
        assert_eq!(
            paths.get(..6).expect("six"),
            [
                format!("HEAD /v2/{name}/manifests/latest"),
                format!("HEAD /v2/{name}/manifests/latest?ns=docker.io"),
                format!("HEAD /docker.io/v2/{name}/manifests/latest?ns=docker.io"),
                format!("HEAD /v2/docker.io/{name}/manifests/latest?ns=docker.io"),
                format!("GET /v2/docker.io/{name}/manifests/latest"),
                format!("HEAD /v2/gcr.io/{name}/manifests/latest"),
            ]
        );
        assert_eq!(pulls.len(), 5 + 6);
    }
}
