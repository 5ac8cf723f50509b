//! How the server is.

use serde::Serialize;

use crate::upstream;
use crate::upstream::Health;

use super::Report;

/// How the server is, now.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    uptime_seconds: u64,
    ready: bool,
    listen: Vec<String>,
    store: StoreStatus,
    upstreams: Vec<UpstreamStatus>,
    requests: RequestSums,
    /// Transfers from upstreams under way.
    fills: usize,
}

#[derive(Debug, Serialize)]
struct StoreStatus {
    path: String,
    /// What came from upstreams.
    bytes: u64,
    /// Its bound.
    max_bytes: u64,
    hosted_bytes: u64,
    spool_bytes: u64,
    free_bytes: u64,
    state: &'static str,
    /// Whether the index has everything that the tree has.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct UpstreamStatus {
    host: String,
    up: Parts,
    budget_remaining: Option<u64>,
    budget_limit: Option<u64>,
    credential_refused: bool,
    /// Why a part does not answer, where one does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

/// Whether each part answers; nothing where it was not asked yet.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Parts {
    registry: Option<bool>,
    token: Option<bool>,
    cdn: Option<bool>,
}

#[derive(Debug, Serialize)]
struct RequestSums {
    total: u64,
    hit: u64,
    miss: u64,
    stale: u64,
    error: u64,
    sent_bytes: u64,
    saved_pulls: u64,
}

impl Report {
    /// How the server is, now. Asks nobody.
    pub fn status(&self) -> Status {
        let (stored, pressure) = (self.store.stored(), *self.store.pressure().borrow());
        let sums = self.metrics.requests_so_far();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.began.elapsed().as_secs(),
            ready: true,
            listen: self.facts.listen.iter().map(ToString::to_string).collect(),
            store: StoreStatus {
                path: self.facts.store.display().to_string(),
                bytes: stored.proxied,
                max_bytes: self.facts.max_bytes,
                hosted_bytes: stored.hosted,
                spool_bytes: stored.spool,
                free_bytes: pressure.free,
                state: self.store_state(),
                complete: *self.store.completeness().borrow() == crate::store::Completeness::Complete,
            },
            upstreams: self
                .repositories
                .upstreams()
                .iter()
                .map(|(_, proxied)| told(&proxied.upstream.state()))
                .collect(),
            requests: RequestSums {
                total: sums.total,
                hit: sums.hits,
                miss: sums.misses,
                stale: sums.stale,
                error: sums.errors,
                sent_bytes: sums.sent_bytes,
                saved_pulls: sums.saved_pulls,
            },
            fills: self.cache.fills(),
        }
    }
}

/// An upstream is up in a part where any of its endpoints is.
fn told(state: &upstream::State) -> UpstreamStatus {
    let part = |of: fn(&upstream::EndpointState) -> &Health| {
        let known: Vec<&Health> = state.endpoints.iter().map(of).filter(|health| **health != Health::Unknown).collect();
        (!known.is_empty()).then(|| known.contains(&&Health::Up))
    };
    let causes = state.endpoints.iter().flat_map(|endpoint| [&endpoint.registry, &endpoint.token, &endpoint.cdn]);
    let cause = causes.into_iter().find_map(|health| match health {
        Health::Down { cause, .. } => Some(cause.clone()),
        Health::Unknown | Health::Up => None,
    });
    UpstreamStatus {
        host: state.host.clone(),
        up: Parts { registry: part(|e| &e.registry), token: part(|e| &e.token), cdn: part(|e| &e.cdn) },
        budget_remaining: state.budget.as_ref().and_then(|budget| budget.remaining),
        budget_limit: state.budget.as_ref().and_then(|budget| budget.limit),
        credential_refused: state.credential_refused,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::Timestamp;
    use crate::upstream::EndpointState;

    use super::*;

    #[test]
    fn an_upstream_is_up_where_any_endpoint_is() {
        let down = || Health::Down { since: Timestamp(0), cause: "refused".to_owned() };
        let endpoint =
            |registry| EndpointState { url: String::new(), registry, token: Health::Unknown, cdn: Health::Up };
        let state = |endpoints| upstream::State {
            host: "docker.io".to_owned(),
            endpoints,
            budget: None,
            credential_refused: false,
        };
        let one = told(&state(vec![endpoint(down()), endpoint(Health::Up)]));
        assert_eq!(one.up, Parts { registry: Some(true), token: None, cdn: Some(true) });
        let none = told(&state(vec![endpoint(down())]));
        assert_eq!((none.up.registry, none.cause.as_deref()), (Some(false), Some("refused")));
    }
}
