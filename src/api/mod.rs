//! HTTP in, HTTP out: the only module that knows status codes, paths and headers of ours.
//!
//! A request is parsed ([`route`]), permitted by `access`, answered from `cache`, and accounted for. What a client may
//! learn of a failure is decided in `error`, in one total match.

mod account;
mod body;
mod error;
mod failure;
mod headers;
pub mod route;

use std::net::IpAddr;

use http::Response;

pub use body::Body;

use failure::Failure;

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The client's address; nothing that a client says of itself replaces it.
    pub address: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
}

/// The answer to a request that can't be read safely.
pub fn malformed() -> Response<Body> {
    Failure::bad_request("the request is malformed").response()
}

/// The answer to a request that failed by a fault of the program.
pub fn failed() -> Response<Body> {
    Failure::internal().response()
}
