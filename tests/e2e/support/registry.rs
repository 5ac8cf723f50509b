//! Debian's docker-registry as upstream.

use bytes::Bytes;
use http::Method;

use super::client;
use super::images::Image;
use super::images::digest;
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
        let port = free_port();
        let folder = scratch.folder("upstream");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
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
        for part in &image.images {
            self.push(repository, &part.digest(), part);
        }
        for blob in &image.blobs {
            self.push_blob(repository, blob);
        }
        let url = format!("{}/v2/{repository}/manifests/{tag}", self.url);
        let answer = client::send(Method::PUT, &url, image.media_type, Bytes::from(image.manifest.clone()))
            .expect("pushing a manifest to the upstream");
        assert_eq!(answer.status, 201, "pushing {repository}:{tag}: {answer:?}");
    }

    fn push_blob(&self, repository: &str, blob: &[u8]) {
        let begun =
            client::send(Method::POST, &format!("{}/v2/{repository}/blobs/uploads/", self.url), "", Bytes::new())
                .expect("beginning an upload to the upstream");
        let session = begun.header("location");
        let at = if session.contains('?') { '&' } else { '?' };
        let url = format!("{session}{at}digest={}", digest(blob));
        let answer = client::send(Method::PUT, &url, "application/octet-stream", Bytes::copy_from_slice(blob))
            .expect("uploading a blob to the upstream");
        assert_eq!(answer.status, 201, "uploading to {repository}: {answer:?}");
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
