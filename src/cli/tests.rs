use std::net::SocketAddr;
use std::sync::Arc;

use clap::CommandFactory as _;
use clap::Parser as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::CommandLine;
use super::Console;
use super::Error;
use super::Outcome;
use crate::tasks::Tasks;

/// What a server of a test answers to a method and a path: status line, further headers, body.
type Answers = fn(&str, &str) -> (&'static str, &'static str, &'static str);

/// A server that answers each request on a connection of its own.
async fn server(answers: Answers) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tasks = Arc::new(Tasks::new());
    let own = Arc::clone(&tasks);
    tasks.spawn("server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            own.spawn("answer", answer(stream, answers));
        }
    });
    address
}

async fn answer(mut stream: TcpStream, answers: Answers) {
    let mut asked = Vec::new();
    // A request's body, if any, is small and comes with its head; what it says does not matter here.
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(read) => asked.extend_from_slice(&piece[..read]),
        }
    }
    let asked = String::from_utf8(asked).expect("text");
    let mut words = asked.split(' ');
    let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
    let (status, headers, body) = answers(method, path);
    let length = body.len();
    let body = if method == "HEAD" { "" } else { body };
    let text = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Runs a command line that asks a server, and hands back what it came to and what it said.
async fn ask(line: &[&str]) -> (Result<Outcome, Error>, String) {
    let parsed = CommandLine::try_parse_from(std::iter::once("larder").chain(line.iter().copied())).expect("parsed");
    let console = Console::kept(parsed.global.json);
    let global = &parsed.global;
    let outcome = match &parsed.command {
        super::Command::Doctor(arguments) => super::doctor::run(arguments, global, &console).await,
        super::Command::Ls(arguments) => super::ls::run(arguments, global, &console).await,
        super::Command::Explain(arguments) => super::explain::run(arguments, global, &console).await,
        super::Command::Refresh(arguments) => {
            super::refresh::run(super::refresh::Order::Refresh, arguments, global, &console).await
        }
        super::Command::Evict(arguments) => {
            super::refresh::run(super::refresh::Order::Evict, arguments, global, &console).await
        }
        super::Command::Scrub => super::scrub::run(global, &console).await,
        super::Command::Runs(order) => super::runs::run(order, global, &console).await,
        other => panic!("{other:?} asks nobody"),
    };
    (outcome, console.said())
}

#[test]
fn verify_cli() {
    CommandLine::command().debug_assert();
}

#[test]
fn global_flags_stand_before_or_after_the_command() {
    for line in [["larder", "--json", "--config", "x", "status"], ["larder", "status", "--json", "--config", "x"]] {
        let parsed = CommandLine::try_parse_from(line).expect("parsed");
        assert!(parsed.global.json && parsed.global.config.is_some(), "{line:?}");
    }
}

#[test]
fn a_mistyped_command_is_answered_with_the_nearest() {
    let error = CommandLine::try_parse_from(["larder", "srve"]).expect_err("no such command");
    assert!(error.to_string().contains("'serve'"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    let nobody = Error::Nobody { address: String::new(), flag: "--admin", source: std::io::Error::other("refused") };
    for (error, code) in [
        (Error::Usage(String::new()), 2),
        (nobody, 3),
        (Error::Refused(String::new()), 1),
        (Error::Server(String::new()), 1),
    ] {
        assert_eq!(error.exit_code(), std::process::ExitCode::from(code), "{error:?}");
    }
}

const REGISTRY: &str = "docker-distribution-api-version: registry/2.0\r\n";

#[tokio::test]
async fn doctor_finds_a_set_up_healthy_whose_upstreams_are_away() {
    let address = server(|_, path| match path {
        "/v2/" => ("200 OK", REGISTRY, "{}"),
        "/healthz" | "/readyz" => ("200 OK", "", "ok"),
        "/metrics" => ("200 OK", "", "larder_build_info 1"),
        _ if path.contains("gcr.io") => ("404 Not Found", "", "{}"),
        _ => ("503 Service Unavailable", "retry-after: 5\r\n", "{}"),
    })
    .await;
    let (outcome, said) = ask(&["doctor", "--url", &format!("http://{address}")]).await;
    assert_eq!(outcome.expect("it ran"), Outcome::Done, "{said}");
    assert!(said.contains("ok      /v2/ answers as a registry\n"), "{said}");
    assert!(said.contains("remark  podman reaches larder, docker.io does not answer (503)"), "{said}");
    assert!(said.contains("ok      any client reaches gcr.io, which answers"), "{said}");
    assert!(said.ends_with("nothing is wrong; 10 remarks\n"), "{said}");
}

#[tokio::test]
async fn doctor_says_what_a_proxy_in_between_took_away() {
    let address = server(|_, path| match path {
        "/v2/" => ("200 OK", "", "{}"),
        "/healthz" | "/readyz" | "/metrics" => ("200 OK", "", "<html>"),
        _ => ("503 Service Unavailable", "", "{}"),
    })
    .await;
    let (outcome, said) = ask(&["doctor", "--json", "--url", &format!("http://{address}")]).await;
    assert_eq!(outcome.expect("it ran"), Outcome::Undone);
    let document: serde_json::Value = serde_json::from_str(&said).expect("one document");
    assert_eq!(document["healthy"], false);
    for words in
        ["lacks Docker-Distribution-API-Version", "503 for docker.io without Retry-After", "/metrics answers 200"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn doctor_is_silent_about_a_server_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let (outcome, said) = ask(&["doctor", "--url", &address.to_string()]).await;
    assert!(matches!(outcome, Err(Error::Nobody { .. })) && said.is_empty(), "{said}");
}

#[tokio::test]
async fn ls_shows_repositories_and_the_tags_of_one() {
    let address = server(|_, path| {
        let body = match path {
            "/api/v1/repositories" => {
                r#"{"repositories":[{"repository":"docker.io/library/app","origin":"proxied","tags":2,"bytes":2048}]}"#
            }
            "/api/v1/tags?repository=app" => {
                r#"{"repository":"docker.io/library/app","tags":[{"tag":"1","digest":"sha256:0123456789abcdef","class":"image","size":1024,"origin":"proxied","used_at":"2026-01-01T00:00:00Z","fresh":true},{"tag":"2"}]}"#
            }
            other => panic!("{other} is not asked for"),
        };
        ("200 OK", "", body)
    })
    .await;
    let admin = format!("http://{address}");
    let (outcome, said) = ask(&["ls", "--admin", &admin]).await;
    assert_eq!(outcome.expect("it ran"), Outcome::Done);
    assert_eq!(said, "REPOSITORY             ORIGIN   TAGS  SIZE\ndocker.io/library/app  proxied  2     2.0 KiB\n");
    let (outcome, said) = ask(&["ls", "app:1", "--admin", &admin]).await;
    assert_eq!(outcome.expect("it ran"), Outcome::Done);
    assert!(
        said.contains("1    sha256:0123456789ab  image  1.0 KiB  proxied  fresh  2026-01-01T00:00:00Z\n"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2, "only the tag that was asked for: {said}");
    let (outcome, _) = ask(&["ls", "app:3", "--admin", &admin]).await;
    assert_eq!(outcome.expect("it ran"), Outcome::Undone, "a tag that is not here");
}

#[tokio::test]
async fn runs_are_listed_shown_and_ended() {
    let address = server(|method, path| {
        let (status, body) = match (method, path) {
            ("GET", "/api/v1/runs") => (
                "200 OK",
                r#"{"runs":[{"id":"ci-7","began_at":"B","used_at":"U","expires_at":"E","tags":2}],"more":false}"#,
            ),
            ("GET", "/api/v1/runs/ci-7") => (
                "200 OK",
                r#"{"id":"ci-7","tags":[{"repository":"docker.io/library/app","tag":"1","digest":"sha256:ab","at":"A"}]}"#,
            ),
            ("DELETE", "/api/v1/runs/ci-7") => ("200 OK", r#"{"id":"ci-7","outcome":"ended"}"#),
            _ => ("404 Not Found", r#"{"errors":[{"message":"there is no such run"}]}"#),
        };
        (status, "", body)
    })
    .await;
    let url = format!("http://{address}");
    for at in [["--admin", &url], ["--server", &url]] {
        for (line, want) in [
            (vec!["runs", "list"], "RUN   TAGS  BEGAN  LAST USE  OVER AT\nci-7  2     B      U         E\n"),
            (
                vec!["runs", "show", "ci-7"],
                "REPOSITORY             TAG  DIGEST     SINCE\ndocker.io/library/app  1    sha256:ab  A\n",
            ),
            (vec!["runs", "end", "ci-7"], "ci-7: ended\n"),
        ] {
            let (outcome, said) = ask(&[line.as_slice(), &at].concat()).await;
            assert_eq!((outcome.expect("it ran"), said.as_str()), (Outcome::Done, want));
        }
        let (outcome, _) = ask(&["runs", "show", "other", at[0], at[1]]).await;
        assert!(matches!(&outcome, Err(Error::Refused(said)) if said.contains("no such run")), "{outcome:?}");
    }
    let (outcome, _) = ask(&["runs", "end", "a/b", "--admin", &url]).await;
    assert!(matches!(outcome, Err(Error::Usage(_))), "{outcome:?}");
}

#[tokio::test]
async fn what_was_not_done_for_one_image_is_told_by_the_exit_code() {
    let address = server(|method, path| {
        assert_eq!(method, "POST");
        let body = match path {
            "/api/v1/refresh" => {
                r#"{"results":[{"ref":"a","outcome":"moved","digest":"sha256:1"},{"ref":"b","outcome":"failed","error":"no connection"}]}"#
            }
            _ => r#"{"results":[{"ref":"a","outcome":"evicted","freed_bytes":1024}]}"#,
        };
        ("200 OK", "", body)
    })
    .await;
    let admin = format!("http://{address}");
    let (outcome, said) = ask(&["refresh", "a", "b", "--admin", &admin]).await;
    assert_eq!(outcome.expect("it ran"), Outcome::Undone);
    assert_eq!(said, "a: moved sha256:1\n");
    let (outcome, said) = ask(&["evict", "a", "--admin", &admin]).await;
    assert_eq!(outcome.expect("it ran"), Outcome::Done);
    assert_eq!(said, "a: evicted, 1.0 KiB freed\n");
}

#[tokio::test]
async fn a_scrub_is_done_when_it_says_so_and_found_nothing() {
    async fn scrub(answers: Answers) -> (Result<Outcome, Error>, String) {
        let address = server(answers).await;
        ask(&["scrub", "--admin", &address.to_string()]).await
    }
    let (outcome, said) = scrub(|_, _| {
        (
            "200 OK",
            "",
            "{\"checked\":1,\"bytes\":10,\"total\":20}\n{\"done\":true,\"checked\":2,\"bytes\":20,\"failures\":[]}\n",
        )
    })
    .await;
    assert_eq!(outcome.expect("it ran"), Outcome::Done);
    assert_eq!(said, "2 blobs with 20 B checked, 0 damaged\n");
    let damaged: Answers =
        |_, _| ("200 OK", "", "{\"done\":true,\"checked\":2,\"bytes\":20,\"failures\":[\"sha256:1\"]}\n");
    let (outcome, said) = scrub(damaged).await;
    assert_eq!(outcome.expect("it ran"), Outcome::Undone);
    assert_eq!(said, "sha256:1\n2 blobs with 20 B checked, 1 damaged\n");
    let (outcome, _) = scrub(|_, _| ("200 OK", "", "{\"checked\":1,\"bytes\":10}\n")).await;
    assert!(outcome.is_err(), "it ended before its end");
}
