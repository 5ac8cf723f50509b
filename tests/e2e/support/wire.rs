//! A relay before larder that notes what a client asks on the wire: which spelling, which ranges.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;

/// It lasts as long as the test's process: its threads end with their connections.
#[derive(Debug)]
pub(crate) struct Wire {
    address: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    /// Listens on a port of its own and passes everything on to the address.
    #[expect(clippy::disallowed_methods, reason = "a test's relay has no tasks of larder's to belong to")]
    pub(crate) fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binding a port for the relay");
        let own = listener.local_addr().expect("a bound listener has an address").to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (target, notes) = (address.to_owned(), Arc::clone(&heard));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let (Ok(from_client), Ok(to_client)) = (client.try_clone(), client.try_clone()) else { continue };
                let Ok(from_server) = server.try_clone() else { continue };
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || pass(from_client, server, Some(&notes)));
                std::thread::spawn(move || pass(from_server, to_client, None));
            }
        });
        Self { address: own, heard }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far: the line and the headers of each.
    pub(crate) fn requests(&self) -> Vec<String> {
        let heard = self.heard.lock().expect("no thread of the relay panics");
        let text = String::from_utf8_lossy(&heard);
        text.split("\r\n\r\n").filter(|head| !head.is_empty()).map(str::to_owned).collect()
    }

    pub(crate) fn forget(&self) {
        self.heard.lock().expect("no thread of the relay panics").clear();
    }
}

/// Copies until one side ends, then lets the other know. Requests of a pull have no bodies, so what is noted is heads.
fn pass(mut from: TcpStream, mut to: TcpStream, notes: Option<&Mutex<Vec<u8>>>) {
    let mut copy = || -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut head = Vec::new();
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let part = buffer.get(..count).unwrap_or_default();
            if let Some(notes) = notes {
                // Whole heads only: two connections must not mix theirs.
                head.extend_from_slice(part);
                if head.ends_with(b"\r\n\r\n") {
                    notes.lock().expect("no thread of the relay panics").append(&mut head);
                }
            }
            to.write_all(part)?;
        }
    };
    let _ = copy();
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
