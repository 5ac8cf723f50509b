//! Looking after what failed: one background probe every few seconds, only while a circuit is open.

use std::sync::Arc;

use http::Method;
use http::StatusCode;
use tokio::time::Instant;
use url::Url;

use crate::net::address::Origin;

use super::Error;
use super::Fault;
use super::challenge::Challenge;
use super::circuit::PROBE_EVERY;
use super::circuit::Part;
use super::endpoints::Core;
use super::endpoints::Endpoint;
use super::exchange::Failed;

impl Core {
    /// Probes that part until it answers. Ends with the upstream's configuration, or the program.
    pub(super) fn watch(self: &Arc<Self>, at: usize, part: Part) {
        let core = Arc::downgrade(self);
        let stopping = self.tasks.stopping();
        self.tasks.spawn("upstream-probe", async move {
            loop {
                let wait = match core.upgrade() {
                    Some(core) => core.probe(at, part).await,
                    None => None,
                };
                let Some(wait) = wait else { return };
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        });
    }

    /// One probe, if it is time for one. Returns how long to wait for the next; `None`: the part answers.
    async fn probe(self: &Arc<Self>, at: usize, part: Part) -> Option<std::time::Duration> {
        let endpoint = self.endpoints.get(at)?;
        let circuit = endpoint.circuit(part);
        let _probe = match circuit.background_probe(Instant::now()) {
            Err(wait) => return Some(wait),
            Ok(None) => return None,
            Ok(Some(probe)) => probe,
        };
        let (url, origin) = self.probed(endpoint, part)?;
        match self.probe_url(url, &origin, part).await {
            Ok(()) => {
                self.succeeded(endpoint, part, &origin);
                None
            }
            Err(failed) => {
                self.failed(at, &failed, false);
                Some(PROBE_EVERY)
            }
        }
    }

    /// What is asked to see whether a part answers.
    fn probed(&self, endpoint: &Endpoint, part: Part) -> Option<(Url, Origin)> {
        let url = match part {
            Part::Registry => endpoint.base("v2/"),
            Part::Token => match endpoint.known()?.challenge {
                Challenge::Bearer(bearer) => self.realms.check(&endpoint.url, &bearer.realm).ok()?,
                Challenge::Basic => return None,
            },
            Part::Cdn => Url::parse(&format!("{}/", endpoint.circuit(part).origin()?)).ok()?,
        };
        let origin = Origin::of(&url)?;
        Some((url, origin))
    }

    async fn probe_url(&self, url: Url, origin: &Origin, part: Part) -> Result<(), Failed> {
        let method = if part == Part::Cdn { Method::HEAD } else { Method::GET };
        let request = super::exchange::request(method, &url, http::HeaderMap::new(), bytes::Bytes::new())
            .map_err(|error| Failed::new(error, part))?;
        let deadline = Instant::now() + self.limits.headers;
        let answer = self.send("probe", request, origin, part, deadline).await?;
        let status = answer.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            let message = format!("probing {}: it answered {status}", origin.host());
            let failed = Failed::new(Error::new(Fault::Status(status.as_u16()), message), part);
            return Err(failed.at(origin));
        }
        Ok(())
    }
}
