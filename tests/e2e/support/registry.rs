//! Debian's docker-registry as upstream.

use super::client;
use super::content;
use super::images::Image;
use super::parts::Program;
use super::parts::REGISTRY;
use super::parts::Scratch;
use super::parts::free_port;

#[derive(Debug)]
pub(crate) struct Registry {
    program: Program,
    url: String,
}

impl Registry {
    pub(crate) fn start(scratch: &Scratch) -> Self {
        Self::with(scratch, false)
    }

    /// One that manifests may be deleted in.
    pub(crate) fn deleting(scratch: &Scratch) -> Self {
        Self::with(scratch, true)
    }

    fn with(scratch: &Scratch, deletes: bool) -> Self {
        let port = free_port();
        let folder = scratch.folder("upstream");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: {deletes}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            folder.display()
        );
        let config = scratch.file("upstream.yml", &config);
        let mut command = REGISTRY.command();
        command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
        let mut program = Program::start(scratch, "upstream", &mut command);
        let url = format!("http://127.0.0.1:{port}");
        program.wait_until("answering", || client::get(&format!("{url}/v2/")).is_ok_and(|answer| answer.status == 200));
        Self { program, url }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Pushes an image, or an index and its images, under a tag.
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &Image) {
        content::push(&self.url, repository, tag, image);
    }

    /// How often its access log has a request of this method for such a path.
    pub(crate) fn asked(&self, method: &str, path: &str) -> usize {
        let start = format!("\"{method} {path}");
        self.program.log().lines().filter(|line| line.contains(&start)).count()
    }

    /// How many bytes its access log says it sent for GETs of such a path.
    pub(crate) fn sent(&self, path: &str) -> usize {
        let start = format!("\"GET {path}");
        let log = self.program.log();
        // … "GET /v2/… HTTP/1.1" 206 1048576 "" …
        let answers =
            log.lines().filter(|line| line.contains(&start)).filter_map(|line| line.split("HTTP/1.1\" ").nth(1));
        answers.filter_map(|answer| answer.split(' ').nth(1)?.parse::<usize>().ok()).sum()
    }

    pub(crate) fn stop(&mut self) {
        self.program.stop();
    }
}
