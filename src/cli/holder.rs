//! Which program holds an address that is in use, from `/proc`.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;

/// The state LISTEN in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) name: String,
}

/// The process that listens where `address` would, as far as this user may see it.
pub(super) fn of(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, address))
        .collect();
    processes().find(|(_, folder)| holds_any(folder, &inodes)).map(|(pid, folder)| {
        let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        Holder { pid, name: name.trim().to_owned() }
    })
}

/// The inodes of sockets that listen on the address, or on every address with its port.
fn listening(table: &str, wanted: SocketAddr) -> Vec<String> {
    let socket = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let local = words.next()?;
        let state = words.nth(1)?;
        let inode = words.nth(5)?;
        let address = parse_local(local)?;
        let clashes = address.port() == wanted.port()
            && (address.ip() == wanted.ip() || address.ip().is_unspecified() || wanted.ip().is_unspecified());
        (state == LISTEN && clashes).then(|| inode.to_owned())
    };
    table.lines().filter_map(socket).collect()
}

/// `0100007F:1388` is 127.0.0.1:5000: words of 32 bits in the machine's order, then the port.
fn parse_local(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::new();
    for start in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    if let Ok(four) = <[u8; 4]>::try_from(octets.as_slice()) {
        return Some(SocketAddr::from((Ipv4Addr::from(four), port)));
    }
    let sixteen = <[u8; 16]>::try_from(octets.as_slice()).ok()?;
    let ip = Ipv6Addr::from(sixteen);
    Some(SocketAddr::from((ip, port)))
}

fn processes() -> impl Iterator<Item = (u32, std::path::PathBuf)> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    })
}

fn holds_any(process: &Path, inodes: &[String]) -> bool {
    let descriptors = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|wanted| wanted == inode))
    })
}

#[cfg(test)]
mod tests {
    use super::listening;
    use super::of;

    #[test]
    fn the_process_that_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let holder = of(listener.local_addr().expect("an address")).expect("found");
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.name.is_empty());
    }

    #[test]
    fn only_listening_sockets_of_that_address_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 x\n\
             1: 00000000:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 222 1 x\n\
             2: 0100007F:1388 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 333 1 x\n\
             3: 0200007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 444 1 x\n";
        assert_eq!(listening(table, "127.0.0.1:5000".parse().expect("an address")), ["111", "222"]);
        assert!(listening(table, "127.0.0.1:5001".parse().expect("an address")).is_empty());
        assert!(listening("", "127.0.0.1:5000".parse().expect("an address")).is_empty());
    }
}
