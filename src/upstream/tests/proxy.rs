use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use url::Url;

use super::server::Server;
use super::server::ask;
use super::server::config;
use super::server::nobody;
use super::server::open;
use super::server::reply;
use crate::config::Contents;
use crate::config::Secret;
use crate::config::upstream::Proxy;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::upstream::Fault;
use crate::upstream::NoConnection;
use crate::upstream::Wanted;

fn proxy(url: &str) -> Proxy {
    let credential = Some(("larder".to_owned(), Secret::new("hunter2")));
    Proxy { url: Url::parse(url).unwrap(), credential }
}

#[tokio::test]
async fn a_proxy_gets_what_is_not_encrypted_as_a_whole() {
    let server = Server::start(|asked| match asked.header("host") {
        Some("registry.invalid") => reply(200).header("content-type", MediaType::OCI_MANIFEST).body("{}"),
        _ => reply(500),
    })
    .await;
    let mut config = config(&["http://registry.invalid"]);
    config.proxy = Some(proxy(&server.url()));
    assert!(open(&config).manifest(&ask("a"), &"1".parse().unwrap()).await.unwrap().is_some());
    let [asked] = &server.asked()[..] else { panic!("one request") };
    assert!(asked.header("proxy-authorization").unwrap().starts_with("Basic "));
}

#[tokio::test]
async fn a_proxy_is_no_way_to_a_private_address() {
    let server = Server::start(|_| reply(307).header("location", "http://0x7f.1:1/")).await;
    let mut config = config(&["http://registry.invalid"]);
    config.proxy = Some(proxy(&server.url()));
    let error = open(&config).blob(&ask("a"), &Digest::of(b"x"), &Wanted::default()).await.unwrap_err();
    assert_eq!((error.fault(), server.asked().len()), (Fault::AddressRefused, 1));
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_a_fault_of_its_own() {
    let mut config = config(&["https://registry.invalid"]);
    config.proxy = Some(proxy(&nobody().await));
    let error = open(&config).manifest(&ask("a"), &"1".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::NoConnection(NoConnection::Proxy));
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_is_encrypted_goes_through_a_tunnel() {
    let certificate = rcgen::generate_simple_self_signed(vec!["registry.invalid".to_owned()]).unwrap();
    let answer = || reply(200).header("content-type", MediaType::OCI_MANIFEST).body("{}");
    let server = Server::start_tls(&certificate, move |_| answer()).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (seen, address) = (Arc::clone(&heads), server.address);
    server.tasks.spawn("tunnel", async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        seen.lock().unwrap().push(String::from_utf8(head).unwrap());
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut behind = TcpStream::connect(address).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut client, &mut behind).await);
    });
    let mut config = config(&["https://registry.invalid"]);
    config.proxy = Some(proxy(&format!("http://{at}")));
    config.ca_file = Some(Contents { path: "ca.pem".into(), bytes: certificate.cert.pem().into_bytes().into() });
    assert!(open(&config).manifest(&ask("a"), &"1".parse().unwrap()).await.unwrap().is_some());
    let heads = heads.lock().unwrap();
    let [head] = &heads[..] else { panic!("one tunnel") };
    assert!(
        head.starts_with("CONNECT registry.invalid:443 ") && head.to_lowercase().contains("proxy-authorization: basic")
    );
    assert_eq!(server.asked()[0].header("proxy-authorization"), None, "the registry does not see it");
}
