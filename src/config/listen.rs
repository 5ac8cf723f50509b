//! Where the server listens, what it is called, and how it stops.

use std::net::Ipv4Addr;
use std::net::SocketAddr;

use super::secret::Contents;
use super::table::Table;
use super::value::Value;

/// The certificate of the registry and admin listeners, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, the server's own first.
    pub certificate: Contents,
    /// Its private key.
    pub key: Contents,
}

/// The second listener: the API for whoever runs the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Its address.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5001)) }
    }
}

/// The registry's address when none is configured.
pub fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 5000))
}

/// Reads an address with its port: `127.0.0.1:5000`, `[::1]:5000`, `localhost:5000`.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    if let Ok(address) = numeric.parse() {
        return Ok(address);
    }
    Err(match (text.parse::<std::net::IpAddr>(), text.strip_prefix(':'), text.parse::<u16>()) {
        (Ok(ip), ..) => format!("`{text}` has no port; write {}", SocketAddr::from((ip, 5000))),
        (_, Some(port), _) => {
            format!("`{text}` has no address; write 127.0.0.1:{port}, or 0.0.0.0:{port} for every interface")
        }
        (.., Ok(port)) => {
            format!("`{text}` has no address; write 127.0.0.1:{port}, or 0.0.0.0:{port} for every interface")
        }
        _ if text == "localhost" => "`localhost` has no port; write 127.0.0.1:5000".to_owned(),
        _ => format!("`{text}` is not an address with a port; write one like 127.0.0.1:5000 or [::1]:5000"),
    })
}

pub(super) fn address(value: &Value<'_>) -> Option<SocketAddr> {
    value.parsed(parse_address)
}

/// Reads one address or a list of them; an empty list would be a server that nobody reaches.
pub(super) fn addresses(value: &Value<'_>) -> Option<Vec<SocketAddr>> {
    let items = value.one_or_list();
    let found: Vec<SocketAddr> = items.iter().filter_map(address).collect();
    if items.is_empty() {
        value.problem("at least one address is needed, like 127.0.0.1:5000");
    }
    for (number, item) in items.iter().enumerate() {
        let again = found.get(number).is_some_and(|this| found.iter().take(number).any(|other| other == this));
        if again && found.len() == items.len() {
            item.problem("this address is listed twice");
        }
    }
    if found.is_empty() { None } else { Some(found) }
}

impl Admin {
    pub(super) fn read(&mut self, table: &mut Table<'_>) {
        table.set("listen", &mut self.listen, address);
    }
}

impl Tls {
    pub(super) fn read(value: &Value<'_>) -> Option<Self> {
        let mut table = value.table()?;
        let certificate = table.required("certificate", |value| pem(value, "CERTIFICATE"));
        let key = table.required("key", |value| {
            let key = pem(value, "PRIVATE KEY");
            if let Some(key) = &key {
                value.warn_if_others_can_read(&key.path);
            }
            key
        });
        table.close();
        Some(Self { certificate: certificate?, key: key? })
    }
}

/// A PEM file that holds what it should: the wrong file is noticed here, not at the first handshake.
pub(super) fn pem(value: &Value<'_>, kind: &str) -> Option<Contents> {
    let file = value.contents()?;
    let text = String::from_utf8_lossy(&file.bytes);
    let holds =
        text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{kind}-----")));
    if !holds {
        value.problem(format!("{} holds no {} in PEM form", file.path.display(), kind.to_lowercase()));
        return None;
    }
    Some(file)
}
