//! An upstream in this process that counts what it is asked, can be slowed down, silent, failing, or gone.

use std::collections::HashMap;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use larder::oci::Digest;
use tokio::time::Instant;

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Serving,
    /// It takes requests and never answers.
    Silent,
    /// It answers everything with this status.
    Failing(u16),
    /// It ends.
    Gone,
}

/// Bytes with their media type.
type Content = (&'static str, Arc<Vec<u8>>);

struct State {
    /// What it has, by digest.
    content: Mutex<HashMap<String, Content>>,
    mode: Mutex<Mode>,
    /// Bytes a second of each answer.
    rate: Option<u64>,
    asked: AtomicU64,
    transfers: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// The upstream; gone when it is dropped.
pub struct Origin {
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

impl Origin {
    pub fn start(rate: Option<u64>) -> Self {
        Self::start_at(super::server::free_address(), rate)
    }

    /// At an address that was chosen before.
    pub fn start_at(address: SocketAddr, rate: Option<u64>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let state = Arc::new(State {
            content: Mutex::default(),
            mode: Mutex::new(Mode::Serving),
            rate,
            asked: AtomicU64::new(0),
            transfers: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let accepting = Some(spawn({
            let state = Arc::clone(&state);
            move || accept(&listener, &state)
        }));
        Self { address, state, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn add_blob(&self, bytes: Arc<Vec<u8>>) -> Digest {
        let digest = Digest::of(&bytes);
        self.state.content.lock().unwrap().insert(digest.to_string(), ("application/octet-stream", bytes));
        digest
    }

    pub fn forget(&self, digest: &Digest) {
        self.state.content.lock().unwrap().remove(&digest.to_string());
    }

    pub fn set(&self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
    }

    /// Requests so far, whatever they were.
    pub fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// GETs of content so far.
    pub fn transfers(&self) -> u64 {
        self.state.transfers.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.set(Mode::Gone);
        drop(TcpStream::connect(self.address));
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name("upstream".into()).spawn(work).unwrap()
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    while let Ok((stream, _)) = listener.accept() {
        if *state.mode.lock().unwrap() == Mode::Gone {
            return;
        }
        state.open.lock().unwrap().push(stream.try_clone().unwrap());
        let state = Arc::clone(state);
        // A client that goes away ends its thread.
        spawn(move || drop(serve(stream, &state)));
    }
}

fn serve(mut stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => read.extend_from_slice(&buffer[..count]),
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        read.drain(..end);
        state.asked.fetch_add(1, Ordering::SeqCst);
        let mode = *state.mode.lock().unwrap();
        match mode {
            Mode::Serving => answer(&mut stream, state, &head)?,
            Mode::Silent => std::thread::sleep(Duration::from_hours(1)),
            Mode::Failing(status) => {
                write!(stream, "HTTP/1.1 {status} Failing\r\nRetry-After: 10\r\nContent-Length: 0\r\n\r\n")?;
            }
            Mode::Gone => return Ok(()),
        }
    }
}

fn answer(stream: &mut TcpStream, state: &State, head: &str) -> io::Result<()> {
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    if path == "/v2/" {
        return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    }
    let reference = path.rsplit('/').next().unwrap_or_default();
    let Some((media_type, bytes)) = state.content.lock().unwrap().get(reference).cloned() else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nDocker-Content-Digest: {reference}\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    )?;
    if method == "HEAD" {
        return Ok(());
    }
    state.transfers.fetch_add(1, Ordering::SeqCst);
    let Some(rate) = state.rate else { return stream.write_all(&bytes) };
    let (began, mut sent) = (Instant::now(), 0_u64);
    for part in bytes.chunks(64 << 10) {
        stream.write_all(part)?;
        sent += part.len() as u64;
        let due = Duration::from_micros(sent * 1_000_000 / rate);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    Ok(())
}
