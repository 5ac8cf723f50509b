//! Which addresses may be connected to.
//!
//! What an upstream sends (a realm, a redirect) must not lead into our own network. An address is checked after it was
//! resolved and before it is dialled, so that a name can't change between the two.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use http::Uri;
use ipnet::IpNet;
use url::Url;

/// Where an upstream's connections may go.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    written: Vec<Origin>,
    allowed: Vec<IpNet>,
}

/// Scheme, host and port: who a URL talks to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Of a URL; `None` for one that is neither http nor https or names no host.
    pub fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        Some(Self { scheme: url.scheme().to_owned(), host: host.to_ascii_lowercase(), port })
    }

    /// Of a request's URI.
    pub(super) fn of_uri(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?;
        let port = match (uri.port_u16(), scheme) {
            (Some(port), _) => port,
            (None, "https") => 443,
            (None, "http") => 80,
            (None, _) => return None,
        };
        Some(Self { scheme: scheme.to_owned(), host: uri.host()?.to_ascii_lowercase(), port })
    }

    /// Whether it is spoken to with TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme == "https"
    }

    /// The host: a name, or an address, the sixth version's in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as an address, where it is one.
    pub(super) fn literal(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

impl Policy {
    /// Public addresses, those of `allowed`, and whatever address the origins have that are `written` in the
    /// configuration: exactly that scheme, host and port.
    pub fn new<'a>(written: impl IntoIterator<Item = &'a Url>, allowed: &[IpNet]) -> Self {
        Self { written: written.into_iter().filter_map(Origin::of).collect(), allowed: allowed.to_vec() }
    }

    /// Whether `origin` may be connected to at `address`.
    pub fn permits(&self, origin: &Origin, address: IpAddr) -> bool {
        let address = plain(address);
        is_public(address)
            || self.written.contains(origin)
            || self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// An IPv4 address in its plain form, however IPv6 wraps it.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Whether an address is one of the public internet, and none that clouds serve their metadata at.
fn is_public(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127, _, _) | (169, 254, _) | (192, 168, _) | (192, 0, 0) | (198, 18 | 19, _) => true,
        (100, b, _) => (64..128).contains(&b),
        (172, b, _) => (16..32).contains(&b),
        (a, _, _) => a >= 224,
    };
    // Azure serves machines their metadata at a public address.
    !special && address != Ipv4Addr::new(168, 63, 129, 16)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, _, _, _, high, low] = address.segments();
    let [h1, h2] = high.to_be_bytes();
    let [l1, l2] = low.to_be_bytes();
    match (a, b) {
        // Unspecified, loopback, IPv4 addresses in an old form; Teredo, which hides one.
        (0, _) | (0x2001, 0) => false,
        // NAT64 leads to the IPv4 address at its end; its local form leads anywhere.
        (0x64, 0xff9b) => c == 0 && is_public_v4(Ipv4Addr::new(h1, h2, l1, l2)),
        // 6to4 leads to the IPv4 address behind its prefix.
        (0x2002, _) => {
            let ([b1, b2], [c1, c2]) = (b.to_be_bytes(), c.to_be_bytes());
            is_public_v4(Ipv4Addr::new(b1, b2, c1, c2))
        }
        // Unique local, link-local, site-local, multicast.
        (a, _) => !(0xfc00..0xfe00).contains(&a) && a < 0xfe80,
    }
}

#[cfg(test)]
mod tests;
