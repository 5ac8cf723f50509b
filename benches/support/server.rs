//! larder and nginx as processes of their own, so that the kernel says what each of them costs.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

/// The kernel's unit of CPU time in `/proc`, a second divided by this, on every Linux.
const TICKS: f64 = 100.0;

/// A server, ended when this is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

/// An address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

impl Server {
    /// The larder that was built with this benchmark, or the one that `LARDER` names, on the store in `folder/data`.
    /// `more` is added to its configuration.
    pub fn larder(folder: &Path, more: &serde_json::Value) -> Self {
        let address = free_address();
        let mut config = serde_json::json!({
            "listen": address.to_string(),
            "admin": { "listen": free_address().to_string() },
            "telemetry": { "log": "warn" },
            "store": { "path": folder.join("data"), "reserve_free": "0B" },
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let file = folder.join("larder.yaml");
        std::fs::write(&file, config.to_string()).unwrap();
        let program = std::env::var_os("LARDER").unwrap_or_else(|| env!("CARGO_BIN_EXE_larder").into());
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(file);
        Self::start(command, address, &folder.join("larder.log"))
    }

    /// nginx before the files of `root`, as it is usually set up for them; `None` where it is not installed.
    pub fn nginx(folder: &Path, root: &Path) -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists())?;
        let (address, mut text) = (free_address(), String::new());
        let (folder, root) = (folder.display(), root.display());
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/nginx-{kind};"))
            .concat();
        writeln!(
            text,
            "daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/nginx.log; user root;
             events {{ worker_connections 4096; }}
             http {{ sendfile on; tcp_nopush on; tcp_nodelay on; access_log off; open_file_cache max=1000;
               keepalive_requests 100000000; {temporary} default_type application/octet-stream;
               server {{ listen {address} backlog=1024; root {root}; }} }}"
        )
        .unwrap();
        let file = Path::new(&folder.to_string()).join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).arg("-e").arg("stderr");
        Some(Self::start(command, address, Path::new(&format!("{folder}/nginx.out"))))
    }

    fn start(mut command: Command, address: SocketAddr, log: &Path) -> Self {
        let output = std::fs::File::create(log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).spawn().unwrap();
        for _ in 0..2000 {
            if TcpStream::connect(address).is_ok() {
                return Self { child, address };
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{command:?} does not serve: {}", std::fs::read_to_string(log).unwrap_or_default());
    }

    /// The process and those that it started.
    fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(children.split_whitespace().filter_map(|id| id.parse().ok())).collect()
    }

    /// CPU-seconds so far, of user and system.
    pub fn cpu(&self) -> f64 {
        let of = |id: u32| -> Option<f64> {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // The name, which may hold anything, ends at the last parenthesis; user and system time are the 12th and
            // 13th field after it.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
            let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some((user + system) / TICKS)
        };
        self.processes().into_iter().filter_map(of).sum()
    }

    /// Bytes of memory that are no file's.
    pub fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim_end_matches("kB").trim().parse::<f64>().unwrap() * 1024.0
    }
}

impl Server {
    /// The most bytes of memory that it ever had.
    pub fn peak(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim_end_matches("kB").trim().parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.child.id())
            && let Some(id) = rustix::process::Pid::from_raw(id)
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
