//! A failure as a client sees it: status, code of the specification, one sentence, and the headers that belong to it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::time::Duration;

use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;

use crate::oci::ErrorCode;
use crate::telemetry;

use super::body::Body;
use super::headers;

/// How long a refused client is asked to wait where nobody says how long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Where what was too much will soon be less.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// A failure as the client sees it.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: ErrorCode,
    message: Cow<'static, str>,
    /// What it is about, for a client's own log: a digest, a tag.
    detail: Option<String>,
    retry_after: Option<Duration>,
    extra: Extra,
    /// The cause in one line, for the log only.
    cause: Option<String>,
}

/// A header that belongs to one kind of failure.
#[derive(Debug)]
enum Extra {
    None,
    Allow(&'static str),
    Size(u64),
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), detail: None, retry_after: None, extra: Extra::None, cause: None }
    }

    pub(super) fn later(self, wait: Option<Duration>) -> Self {
        Self { retry_after: Some(wait.unwrap_or(RETRY_AFTER)), ..self }
    }

    pub(super) fn because(self, cause: &(dyn StdError + 'static)) -> Self {
        Self { cause: Some(telemetry::chain(cause)), ..self }
    }

    /// Names what it is about. Only what the client named itself, or may see.
    pub(super) fn about(self, detail: &impl std::fmt::Display) -> Self {
        Self { detail: Some(detail.to_string()), ..self }
    }

    /// The same failure in other words.
    pub(super) fn saying(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// A credential is needed. The challenge that goes with it depends on the request.
    pub(super) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, "a credential is needed")
    }

    /// The range lies outside of the body.
    pub(super) fn unsatisfiable(size: u64) -> Self {
        let message = "the range lies outside of the blob";
        let new = Self::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid, message);
        Self { extra: Extra::Size(size), ..new }
    }

    /// There is no such repository, or none that the client may know of: one answer, byte for byte.
    pub(super) fn name_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, "the repository is not known")
    }

    /// The thing exists and does not take this method.
    pub(super) fn method(allow: &'static str) -> Self {
        let new =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, "the operation is not supported here");
        Self { extra: Extra::Allow(allow), ..new }
    }

    /// The body of a request is larger than the configuration allows.
    pub(super) fn body_too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, "the request's body is too large")
    }

    /// A request that can't be meant.
    pub(super) fn bad_request(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
    }

    /// As many requests are being answered as the configuration allows.
    pub(super) fn overloaded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, "too many requests are being answered")
            .later(Some(SOON))
    }

    /// The program failed. What happened is in the log.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unavailable, "the request failed by a fault of larder")
    }

    /// The cause for the log, where there is more to say than the client learns.
    pub(super) fn into_cause(self) -> Option<String> {
        self.cause
    }

    /// The sentence that any client may read.
    pub(super) fn message(&self) -> String {
        self.message.clone().into_owned()
    }

    /// The sentence with its cause, for whoever runs the server.
    pub(super) fn sentence(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {cause}", self.message),
            None => self.message(),
        }
    }

    /// The answer, with the specification's body ("Error Codes").
    pub(super) fn response(&self) -> Response<Body> {
        let error = serde_json::json!({ "code": self.code.as_str(), "message": self.message, "detail": self.detail });
        let body = serde_json::json!({ "errors": [error] }).to_string();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        let head = response.headers_mut();
        head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers::set_number(head, header::CONTENT_LENGTH, body.len() as u64);
        if let Some(wait) = self.retry_after {
            headers::set_retry_after(head, wait);
        }
        match self.extra {
            Extra::None => {}
            Extra::Allow(methods) => headers::set(head, header::ALLOW, methods),
            Extra::Size(size) => headers::set(head, header::CONTENT_RANGE, &format!("bytes */{size}")),
        }
        *response.body_mut() = Body::from(body);
        response
    }
}
