//! The actions of Amazon's API: signed, sent, and their failures told apart.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

use crate::clock::Clock;
use crate::config;
use crate::config::retention::remote::region;
use crate::net::fetch::Answer;
use crate::retention::remote::Error;
use crate::retention::remote::Fault;
use crate::retention::remote::Result;
use crate::retention::remote::api::Api;
use crate::retention::remote::api::said;
use crate::retention::remote::registry::Registry;
use crate::retention::remote::sigv4;
use crate::retention::remote::sigv4::AccessKey;
use crate::retention::remote::sigv4::Signed;

/// The API's name and version, in front of each action.
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921";

/// The form of its documents.
const JSON: &str = "application/x-amz-json-1.1";

/// Where nothing says a region.
const REGION: &str = "us-east-1";

/// The API of one account in one region.
#[derive(Debug)]
pub(super) struct Actions {
    pub(super) registry: Registry,
    pub(super) api: Api,
    account: Option<String>,
    region: String,
}

/// Where the API of a registry is.
pub(in crate::retention::remote) fn api_of(host: &str) -> String {
    let region = region(host).unwrap_or(REGION);
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://api.ecr.{region}.{domain}")
}

impl Actions {
    pub(super) fn new(registry: Registry, api: Api) -> Self {
        let host = registry.name.as_str();
        let region = region(host).unwrap_or(REGION).to_owned();
        let account = host.split('.').next().filter(|first| first.len() == 12 && first.parse::<u64>().is_ok());
        let account = account.map(str::to_owned);
        Self { registry, api: api.limited_by(limited), account, region }
    }

    /// The access key: as it is configured, else from the environment, as Amazon's own tools take it.
    async fn key(&self) -> Result<AccessKey> {
        let needs = "its API needs an access key: its id as username and its secret as password, or AWS_ACCESS_KEY_ID and \
                     AWS_SECRET_ACCESS_KEY in the environment";
        if let Some((id, secret)) = self.registry.login().await? {
            // What docker-credential-ecr-login gives pulls and pushes, and signs nothing.
            let is_password = id == "AWS" || id == "<token>";
            if !is_password {
                return Ok(AccessKey { id, secret, session: None });
            }
        }
        let variable = |name: &str| config::process_environment(name).filter(|value| !value.is_empty());
        let (id, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
        let (Some(id), Some(secret)) = (id, secret) else { return Err(self.api.no_credential(needs)) };
        let session = variable("AWS_SESSION_TOKEN").map(|token| config::Secret::new(&token));
        Ok(AccessKey { id, secret: config::Secret::new(&secret), session })
    }

    fn headers(&self, key: &AccessKey, action: &str, body: &[u8]) -> Option<HeaderMap> {
        let (date, target, host) =
            (sigv4::date(self.registry.clock.now()), format!("{TARGET}.{action}"), self.api.authority());
        let session = key.session.as_ref().map(config::Secret::reveal);
        let mut signed = vec![("content-type", JSON), ("host", host.as_str()), ("x-amz-date", date.as_str())];
        signed.extend(session.map(|token| ("x-amz-security-token", token)));
        signed.push(("x-amz-target", target.as_str()));
        let (region, url) = (self.region.as_str(), self.api.url([]));
        let what =
            Signed { method: "POST", path: url.path(), query: "", headers: &signed, body, region, service: "ecr" };
        let authorization = sigv4::authorization(key, &date, &what)?;
        let mut headers = HeaderMap::new();
        for (name, value) in signed.iter().filter(|(name, _)| *name != "host") {
            let mut value = HeaderValue::try_from(*value).ok()?;
            value.set_sensitive(*name == "x-amz-security-token");
            headers.insert(HeaderName::try_from(*name).ok()?, value);
        }
        headers.insert(header::AUTHORIZATION, authorization);
        Some(headers)
    }

    /// One action; the answer whatever its status.
    pub(super) async fn act(&self, action: &'static str, mut body: Value) -> Result<Answer> {
        if let (Some(account), Some(fields)) = (&self.account, body.as_object_mut()) {
            fields.insert("registryId".to_owned(), json!(account));
        }
        let (key, body) = (self.key().await?, Bytes::from(body.to_string()));
        let headers = self.headers(&key, action, &body).ok_or_else(|| self.api.unusable("the access key is none"))?;
        let kind = if action == "BatchDeleteImage" { "delete" } else { "list" };
        self.api.send(kind, Method::POST, &self.api.url([]), headers, body).await
    }

    /// One action that reads; `Ok(None)` where there is no such image.
    pub(super) async fn ask<T: DeserializeOwned>(&self, action: &'static str, body: Value) -> Result<Option<T>> {
        let answer = self.act(action, body).await?;
        match exception(&answer).as_deref() {
            Some("ImageNotFoundException") => Ok(None),
            _ => self.read(action, &answer).map(Some),
        }
    }

    pub(super) fn read<T: DeserializeOwned>(&self, action: &str, answer: &Answer) -> Result<T> {
        let fault = match exception(answer).as_deref() {
            Some(
                "UnrecognizedClientException"
                | "InvalidSignatureException"
                | "ExpiredTokenException"
                | "MissingAuthenticationTokenException"
                | "InvalidClientTokenId",
            ) => Fault::CredentialRefused,
            Some("AccessDeniedException") => Fault::Denied,
            Some("RepositoryNotFoundException") => Fault::Status(404),
            _ => return self.api.read(action, answer),
        };
        let said = said(answer).unwrap_or_else(|| "no reason given".to_owned());
        Err(Error::new(fault, format!("{}: {action}: {said}", self.registry.name)))
    }
}

/// What kind of failure an answer is: the last part of its `__type`.
fn exception(answer: &Answer) -> Option<String> {
    if answer.status.is_success() {
        return None;
    }
    let document: Value = serde_json::from_slice(&answer.body).ok()?;
    let kind = document.get("__type")?.as_str()?;
    Some(kind.rsplit('#').next().unwrap_or(kind).to_owned())
}

/// Amazon says "too many requests" with a 400.
fn limited(answer: &Answer, clock: &Clock) -> Option<Duration> {
    let is_limited = answer.status.as_u16() == 429
        || matches!(
            exception(answer).as_deref(),
            Some("ThrottlingException" | "TooManyRequestsException" | "RequestLimitExceeded")
        );
    // It never says how long; a second is enough for its buckets.
    is_limited.then(|| answer.retry_after(clock.now()).unwrap_or(Duration::from_secs(1)))
}
