//! Which proxy leads where.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::Request;
use http::Uri;
use http::header::PROXY_AUTHORIZATION;
use hyper_util::client::proxy::matcher::Matcher;

use crate::config;

use super::address::Origin;

/// Which proxy leads where. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxies(Arc<Choice>);

#[derive(Debug)]
enum Choice {
    None,
    /// The one that the configuration names, for everything.
    One(Proxy),
    /// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    Environment(Matcher),
}

/// A proxy to go through.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) uri: Uri,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.uri)
    }
}

impl Proxy {
    /// The header that it wants, marked as not to be printed.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.clone()
    }
}

impl Proxies {
    /// Every connection is direct.
    pub fn none() -> Self {
        Self(Arc::new(Choice::None))
    }

    /// What the environment says, as curl reads it.
    pub fn environment() -> Self {
        Self(Arc::new(Choice::Environment(Matcher::from_env())))
    }

    /// This one for everything; `None` where its URL is no URI.
    pub fn one(url: &url::Url, credential: Option<(&str, &str)>) -> Option<Self> {
        let uri = Uri::try_from(url.as_str()).ok()?;
        let authorization = match credential {
            Some((user, password)) => Some(basic(user, password)?),
            None => None,
        };
        Some(Self(Arc::new(Choice::One(Proxy { uri, authorization }))))
    }

    /// The one that the configuration names, or what the environment says; `None` where its URL is no URI.
    pub fn configured(proxy: Option<&config::upstream::Proxy>) -> Option<Self> {
        let Some(proxy) = proxy else { return Some(Self::environment()) };
        let credential = proxy.credential.as_ref().map(|(user, password)| (user.as_str(), password.reveal()));
        Self::one(&proxy.url, credential)
    }

    /// The proxy for a destination.
    pub(super) fn to(&self, destination: &Uri) -> Option<Proxy> {
        match &*self.0 {
            Choice::None => None,
            Choice::One(proxy) => Some(proxy.clone()),
            Choice::Environment(matcher) => {
                // A proxy can't reach our own machine; curl's users write it into NO_PROXY, Go's need not.
                if Origin::of_uri(destination).as_ref().is_some_and(is_own_machine) {
                    return None;
                }
                let found = matcher.intercept(destination)?;
                Some(Proxy { uri: found.uri().clone(), authorization: found.basic_auth().cloned().map(sensitive) })
            }
        }
    }

    /// Puts the proxy's authorization on a request that it will see in the clear; one over TLS shows it only to the
    /// proxy, while the tunnel is made.
    pub(super) fn authorize<B>(&self, request: &mut Request<B>) {
        if request.uri().scheme_str() == Some("http")
            && let Some(authorization) = self.to(request.uri()).and_then(|proxy| proxy.authorization)
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
    }
}

fn is_own_machine(origin: &Origin) -> bool {
    origin.literal().map_or(origin.host() == "localhost", |address| address.is_loopback())
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))).ok().map(sensitive)
}

fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}
