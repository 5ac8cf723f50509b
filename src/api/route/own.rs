//! The paths that are no repository's: probes, hooks, the API.

use http::Method;

use super::Problem;
use super::Route;
use super::Verb;
use super::is_run;
use super::only;
use super::query;

/// The longest name of a hook.
const HOOK_BYTES_MAX: usize = 64;

/// A request to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Api {
    /// How the server is.
    Status,
    /// Which repositories hold something.
    Repositories,
    /// What is held of one: `?repository=`.
    Tags {
        /// As it stands in image names.
        repository: String,
    },
    /// Why a pull of it hits or misses: `?ref=`.
    Explain {
        /// An image's name.
        reference: String,
    },
    /// What storage comes to and what it saved: `?since=`, `?repository=`.
    Report {
        /// How far back, as durations are written.
        since: Option<String>,
        /// Of which repository branches and tags are told, as it stands in image names.
        repository: Option<String>,
    },
    /// Look at the upstream now.
    Refresh,
    /// Drop what is held.
    Evict,
    /// Which images of a matrix are nowhere.
    Missing,
    /// Hash again what is stored.
    Scrub,
    /// Collect what nothing names.
    Gc,
    /// What policies let go now.
    PrunePlan,
    /// What policies would have let go in the past, and who would have missed it.
    PruneReplay,
    /// Carry such a plan out.
    PruneApply,
    /// Which runs live.
    Runs,
    /// What a run saw.
    Run {
        /// Its name.
        id: String,
    },
    /// End a run.
    EndRun {
        /// Its name.
        id: String,
    },
}

/// The paths that are ours alone. They have no dots to decode and no repository.
pub(super) fn own(method: &Method, path: &str, query: Option<&str>) -> Result<Option<Route>, Problem> {
    let route = match path {
        "healthz" => Route::Healthy,
        "readyz" => Route::Ready,
        "metrics" => Route::Metrics,
        "token" => Route::Token { only_pulls: query::only_pulls(query.unwrap_or_default()) },
        _ => {
            if let Some(kind) = path.strip_prefix("client-config/") {
                only(method, "GET, HEAD")?;
                let word = !kind.is_empty()
                    && kind.len() <= 32
                    && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                return if word { Ok(Some(Route::ClientConfig(kind.to_owned()))) } else { Err(Problem::Nowhere) };
            }
            if let Some(name) = path.strip_prefix("hooks/") {
                only(method, "POST")?;
                return if is_hook(name) { Ok(Some(Route::Hook(name.to_owned()))) } else { Err(Problem::Nowhere) };
            }
            return match path.strip_prefix("api/v1/") {
                Some(noun) => api(method, noun, query.unwrap_or_default()).map(|api| Some(Route::Api(api))),
                None => Ok(None),
            };
        }
    };
    only(method, "GET, HEAD")?;
    Ok(Some(route))
}

/// The API's nouns.
fn api(method: &Method, noun: &str, query: &str) -> Result<Api, Problem> {
    let asked = || only(method, "GET, HEAD");
    let told = || only(method, "POST");
    match noun {
        "status" => asked().map(|_| Api::Status),
        "repositories" => asked().map(|_| Api::Repositories),
        "tags" => {
            asked()?;
            let repository = query::value(query, "repository").ok_or(Problem::Query("repository"))?;
            Ok(Api::Tags { repository })
        }
        "explain" => {
            asked()?;
            Ok(Api::Explain { reference: query::value(query, "ref").ok_or(Problem::Query("ref"))? })
        }
        "report" => {
            asked()?;
            let (since, repository) = (query::value(query, "since"), query::value(query, "repository"));
            Ok(Api::Report { since, repository })
        }
        "refresh" => told().map(|_| Api::Refresh),
        "evict" => told().map(|_| Api::Evict),
        "missing" => told().map(|_| Api::Missing),
        "scrub" => told().map(|_| Api::Scrub),
        "gc" => told().map(|_| Api::Gc),
        "prune/plan" => told().map(|_| Api::PrunePlan),
        "prune/replay" => told().map(|_| Api::PruneReplay),
        "prune/apply" => told().map(|_| Api::PruneApply),
        "runs" => asked().map(|_| Api::Runs),
        _ => {
            let id = noun.strip_prefix("runs/").filter(|id| is_run(id)).ok_or(Problem::Nowhere)?.to_owned();
            let verb = only(method, "GET, HEAD, DELETE")?;
            Ok(if verb == Verb::Delete { Api::EndRun { id } } else { Api::Run { id } })
        }
    }
}

/// Whether the text can be the name of a hook.
fn is_hook(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= HOOK_BYTES_MAX && text.bytes().all(plain)
}
