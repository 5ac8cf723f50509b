//! Clients: wrk for many small requests, and connections of our own that let the kernel throw bodies away.

use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::time::Instant;

/// Bytes that are thrown away at once.
const DISCARD_BYTES: usize = 256 << 10;

/// What wrk counted.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub requests: f64,
    pub per_second: f64,
}

pub fn wrk_is_here() -> bool {
    Path::new("/usr/bin/wrk").exists()
}

/// `connections` of them ask for `path` as often as they can, for `seconds`. It can't ask by HEAD: it waits for the body.
///
/// Panics where an answer was not 2xx.
pub fn wrk(to: SocketAddr, path: &str, connections: usize, seconds: u32) -> Rate {
    let run = Command::new("/usr/bin/wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .arg(format!("http://{to}{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success() && !text.contains("Non-2xx") && !text.contains("Socket errors"), "{path}: {text}");
    let before = |word: &str| text.lines().find_map(|line| line.trim().split_once(word).map(|(n, _)| n.to_owned()));
    let after = |word: &str| text.lines().find_map(|line| line.trim().strip_prefix(word).map(str::to_owned));
    Rate {
        requests: before(" requests in").unwrap().trim().parse().unwrap(),
        per_second: after("Requests/sec:").unwrap().trim().parse().unwrap(),
    }
}

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    scratch: Vec<u8>,
}

/// One answer that was taken to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    /// From the request to the first byte of the body; to the end of the head where there is none.
    pub first_byte: Duration,
    /// From the request to the end.
    pub whole: Duration,
    pub bytes: u64,
}

impl Connection {
    pub fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, scratch: vec![0; DISCARD_BYTES] }
    }

    /// Sends a request and takes nothing of the answer.
    pub fn send(&mut self, method: &str, path: &str) {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n");
        self.stream.write_all(head.as_bytes()).unwrap();
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, None)
    }

    pub fn head(&mut self, path: &str) -> Answer {
        self.ask("HEAD", path, None)
    }

    /// GET whose body is kept.
    pub fn read(&mut self, path: &str) -> (Answer, Vec<u8>) {
        let mut body = Vec::new();
        let answer = self.ask("GET", path, Some(&mut body));
        (answer, body)
    }

    fn ask(&mut self, method: &str, path: &str, mut keep: Option<&mut Vec<u8>>) -> Answer {
        let began = Instant::now();
        self.send(method, path);
        let mut read = 0;
        let end = loop {
            let count = self.receive(read, RecvFlags::empty());
            assert!(count > 0, "{path}: the connection closed before the answer");
            read += count;
            if let Some(at) = self.scratch[..read].windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.scratch[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = |line: &str| {
            line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case("content-length"))?.1.parse().ok()
        };
        let bytes: u64 = if method == "HEAD" { 0 } else { head.lines().find_map(length).unwrap_or(0) };
        let mut left = usize::try_from(bytes).unwrap().checked_sub(read - end).unwrap();
        if let Some(keep) = &mut keep {
            keep.extend_from_slice(&self.scratch[end..read]);
        }
        let mut first_byte = (read > end || bytes == 0).then(|| began.elapsed());
        let flags = if keep.is_some() { RecvFlags::empty() } else { RecvFlags::TRUNC };
        while left > 0 {
            let most = left.min(DISCARD_BYTES);
            let (_, count) = rustix::net::recv(&self.stream, &mut self.scratch[..most], flags).unwrap();
            assert!(count > 0, "{path}: the body broke off, {left} of {bytes} bytes missing");
            first_byte.get_or_insert_with(|| began.elapsed());
            if let Some(keep) = &mut keep {
                keep.extend_from_slice(&self.scratch[..count]);
            }
            left -= count;
        }
        let whole = began.elapsed();
        Answer { status, head, first_byte: first_byte.unwrap_or(whole), whole, bytes }
    }

    fn receive(&mut self, from: usize, flags: RecvFlags) -> usize {
        rustix::net::recv(&self.stream, &mut self.scratch[from..], flags).unwrap().1
    }
}

/// `connections` take `path` `count` times together; the time until the last has it.
pub fn pull(to: SocketAddr, path: &str, connections: usize, count: usize) -> Duration {
    repeat(to, "GET", path, connections, count)
}

/// `connections` ask for `path` `count` times together; the time until the last has its answer.
pub fn repeat(to: SocketAddr, method: &str, path: &str, connections: usize, count: usize) -> Duration {
    let left = AtomicUsize::new(count);
    let mut open: Vec<Connection> = (0..connections).map(|_| Connection::open(to)).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for connection in &mut open {
            scope.spawn(|| {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    let answer = connection.ask(method, path, None);
                    assert_eq!(answer.status, 200, "{}", answer.head);
                }
            });
        }
    });
    began.elapsed()
}

/// `clients` on connections of their own ask for `path` at the same moment; their answers.
pub fn herd(to: SocketAddr, path: &str, clients: usize) -> Vec<Answer> {
    let mut open: Vec<Connection> = (0..clients).map(|_| Connection::open(to)).collect();
    std::thread::scope(|scope| {
        let asking: Vec<_> = open.iter_mut().map(|connection| scope.spawn(|| connection.get(path))).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// The middle of the times that `count` requests take, one after the other on one connection.
pub fn p50(to: SocketAddr, method: &str, path: &str, count: usize) -> Duration {
    let mut connection = Connection::open(to);
    let mut times: Vec<Duration> = (0..count).map(|_| connection.ask(method, path, None).whole).collect();
    times.sort();
    times[times.len() / 2]
}
