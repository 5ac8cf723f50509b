//! A scripted forge of each kind: strict about what it is asked, and its pages are small.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What a forge asks for its listings.
pub const TOKEN: &str = "forge-token";

/// Items on a page: what it is asked for counts only where that is less.
const PAGE: usize = 2;

/// Which API it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Github,
    Gitlab,
    Gitea,
}

pub const KINDS: [Kind; 3] = [Kind::Github, Kind::Gitlab, Kind::Gitea];

/// A request that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
}

impl Seen {
    pub fn page(&self) -> usize {
        self.query.get("page").map_or(1, |page| page.parse().unwrap())
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A pull request: its state is `open`, `closed` or `merged`, and when it changed last.
#[derive(Clone, Debug)]
pub struct PullRequest {
    pub number: u64,
    pub branch: String,
    pub state: &'static str,
    pub updated: String,
}

#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub branches: Vec<String>,
    pub pulls: Vec<PullRequest>,
}

/// Status, headers and body of an answer.
pub type Scripted = (u16, Vec<(&'static str, String)>, String);

type Script = Box<dyn Fn(&Seen, &mut BTreeMap<String, Repository>) -> Option<Scripted> + Send + Sync>;

struct State {
    kind: Kind,
    repositories: Mutex<BTreeMap<String, Repository>>,
    seen: Mutex<Vec<Seen>>,
    surprises: Mutex<Vec<String>>,
    script: Mutex<Option<Script>>,
}

pub struct Forge {
    state: Arc<State>,
    pub address: std::net::SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Forge {
    #[expect(clippy::disallowed_methods, reason = "the scripted forge is no part of larder")]
    pub async fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (repositories, seen, surprises, script) = Default::default();
        let state = Arc::new(State { kind, repositories, seen, surprises, script });
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    let service =
                        service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&state, &request))));
                    let stream = TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
                });
            }
        });
        Self { state, address, server }
    }

    /// The address of its API, with a path in front as GitLab and Gitea have one.
    pub fn api(&self) -> String {
        format!("http://{}/api", self.address)
    }

    pub fn put(&self, name: &str, branches: &[&str]) {
        let branches = branches.iter().map(|branch| (*branch).to_owned()).collect();
        self.state.repositories.lock().unwrap().entry(name.to_owned()).or_default().branches = branches;
    }

    pub fn put_pulls(&self, name: &str, pulls: &[(u64, &'static str, &str)]) {
        let of = |(number, state, updated): &(u64, &'static str, &str)| PullRequest {
            number: *number,
            branch: format!("feature/{number}"),
            state,
            updated: (*updated).to_owned(),
        };
        let pulls = pulls.iter().map(of).collect();
        self.state.repositories.lock().unwrap().entry(name.to_owned()).or_default().pulls = pulls;
    }

    /// What is answered instead from now on; it may change the repositories too.
    pub fn script(
        &self,
        script: impl Fn(&Seen, &mut BTreeMap<String, Repository>) -> Option<Scripted> + Send + Sync + 'static,
    ) {
        *self.state.script.lock().unwrap() = Some(Box::new(script));
    }

    pub fn unscript(&self) {
        *self.state.script.lock().unwrap() = None;
    }

    pub fn asked(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.state.seen.lock().unwrap().clear();
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.server.abort();
        let surprises = self.state.surprises.lock().unwrap();
        assert!(surprises.is_empty() || std::thread::panicking(), "the forge was asked what none is: {surprises:?}");
    }
}

fn answer(state: &State, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let seen = Seen { path: request.uri().path().to_owned(), query, headers: request.headers().clone() };
    state.seen.lock().unwrap().push(seen.clone());
    let scripted = {
        let mut repositories = state.repositories.lock().unwrap();
        state.script.lock().unwrap().as_ref().and_then(|script| script(&seen, &mut repositories))
    };
    let (status, headers, body) = scripted.unwrap_or_else(|| {
        look_up(state, &seen).unwrap_or_else(|surprise| {
            state.surprises.lock().unwrap().push(format!("{surprise}: {seen:?}"));
            (400, Vec::new(), surprise)
        })
    });
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Full::new(Bytes::from(body))).unwrap()
}

/// The documented answer, or what is wrong with the question.
fn look_up(state: &State, seen: &Seen) -> Result<Scripted, String> {
    let kind = state.kind;
    let shown = match kind {
        Kind::Github => seen.header("authorization") == format!("Bearer {TOKEN}"),
        Kind::Gitlab => seen.header("private-token") == TOKEN,
        Kind::Gitea => seen.header("authorization") == format!("token {TOKEN}"),
    };
    if !shown {
        return Err("no token".to_owned());
    }
    let (name, what) = place(kind, &seen.path).ok_or("no such path")?;
    let count = if kind == Kind::Gitea { "limit" } else { "per_page" };
    let wanted: usize = seen.query.get(count).ok_or("no count of items")?.parse().map_err(|_| "no number")?;
    let repositories = state.repositories.lock().unwrap();
    let Some(repository) = repositories.get(&name) else { return Ok((404, Vec::new(), "{}".to_owned())) };
    let items = match what {
        "branches" => repository.branches.iter().map(|name| serde_json::json!({ "name": name })).collect(),
        _ => pulls(kind, repository, seen)?,
    };
    let from = items.len().min((seen.page() - 1) * PAGE.min(wanted));
    let page: Vec<_> = items.iter().skip(from).take(PAGE.min(wanted)).cloned().collect();
    let more = from + page.len() < items.len();
    let headers = match kind {
        Kind::Github => {
            // The host is one that it calls itself.
            let mut query = seen.query.clone();
            query.insert("page".to_owned(), (seen.page() + 1).to_string());
            let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
            let link = format!("<https://forge.test{}?{query}>; rel=\"next\"", seen.path);
            if more { vec![("link", link)] } else { Vec::new() }
        }
        Kind::Gitlab => vec![("x-next-page", if more { (seen.page() + 1).to_string() } else { String::new() })],
        Kind::Gitea => vec![("x-total-count", items.len().to_string())],
    };
    Ok((200, headers, serde_json::Value::from(page).to_string()))
}

/// Which repository is meant, and what of it.
fn place(kind: Kind, path: &str) -> Option<(String, &'static str)> {
    let path = path.strip_prefix("/api/")?;
    let parts: Vec<&str> = path.split('/').collect();
    match (kind, &*parts) {
        (Kind::Github | Kind::Gitea, ["repos", owner, name, "branches"]) => {
            Some((format!("{owner}/{name}"), "branches"))
        }
        (Kind::Github | Kind::Gitea, ["repos", owner, name, "pulls"]) => Some((format!("{owner}/{name}"), "pulls")),
        (Kind::Gitlab, ["projects", name, "repository", "branches"]) => Some((name.replace("%2F", "/"), "branches")),
        (Kind::Gitlab, ["projects", name, "merge_requests"]) => Some((name.replace("%2F", "/"), "pulls")),
        _ => None,
    }
}

/// The pull requests that the question is for, those that changed last first where it says so.
fn pulls(kind: Kind, repository: &Repository, seen: &Seen) -> Result<Vec<serde_json::Value>, String> {
    let state = seen.query.get("state").ok_or("no state")?.as_str();
    let mut found: Vec<&PullRequest> = repository
        .pulls
        .iter()
        .filter(|pull| match (kind, state) {
            (Kind::Gitlab, "all") => seen.query.get("updated_after").is_some_and(|after| pull.updated > *after),
            (_, "open" | "opened") => pull.state == "open",
            (_, "closed") => pull.state != "open",
            _ => false,
        })
        .collect();
    if state != "open" && state != "opened" {
        found.sort_by(|a, b| b.updated.cmp(&a.updated));
    }
    let shown = found.into_iter().map(|pull| {
        let ended = (pull.state != "open").then_some(&pull.updated);
        let merged = ended.filter(|_| pull.state == "merged");
        if kind == Kind::Gitlab {
            let state = if pull.state == "open" { "opened" } else { pull.state };
            serde_json::json!({ "iid": pull.number, "id": 1000 + pull.number, "state": state, "source_branch": pull.branch,
                "sha": "0123", "updated_at": pull.updated, "closed_at": ended.filter(|_| state == "closed"), "merged_at": merged })
        } else {
            let state = if pull.state == "open" { "open" } else { "closed" };
            serde_json::json!({ "number": pull.number, "state": state, "updated_at": pull.updated, "closed_at": ended,
                "merged_at": merged, "head": { "ref": pull.branch, "sha": "0123", "label": pull.branch } })
        }
    });
    Ok(shown.collect())
}
