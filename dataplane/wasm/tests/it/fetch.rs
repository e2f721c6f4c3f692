//! Fetching modules: by URL, from a registry, and all that must not be fetched.
//!
//! Servers are on loopback and named as such, which is the one place inside that may be named.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane_testkit::Backend;
use dataplane_testkit::backend::{Kind, Script};
use dataplane_testkit::certificate::Authority;
use dataplane_wasm::fetch::{FetchError, Fetched, Fetcher, Limits, Source};
use ir::SecretText;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn named(bytes: &[u8]) -> String {
    let digits = digest(bytes).map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.concat())
}

fn answer(status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A server on loopback that answers by path, and remembers what it was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

type Answers = HashMap<String, Vec<Vec<u8>>>;

impl Server {
    /// Each path has answers that are given one after the other, the last one again and again.
    async fn start(answers: impl FnOnce(SocketAddr) -> Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut answers = answers(address);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut task = JoinSet::new();
        let seen = asked.clone();
        task.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).await.is_err() {
                        break;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let bare = path.split('?').next().unwrap_or_default().to_owned();
                seen.lock().unwrap().push(head);
                let reply = match answers.get_mut(&bare) {
                    Some(list) if list.len() > 1 => list.remove(0),
                    Some(list) => list[0].clone(),
                    None => answer(404, "", b""),
                };
                // A client that has seen enough is gone by now.
                let _ = stream.write_all(&reply).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            address,
            asked,
            _task: task,
        }
    }

    fn url(&self, path: &str) -> Source {
        Source::Url(format!("http://{}{path}", self.address))
    }

    fn image(&self, name: &str) -> Source {
        Source::Image {
            reference: format!("{}/{name}", self.address),
            credentials: None,
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn one(path: &str, reply: Vec<u8>) -> Answers {
    HashMap::from([(path.to_owned(), vec![reply])])
}

fn fetcher() -> Fetcher {
    dataplane_testkit::certificate::install_crypto_provider();
    Fetcher::new(false, Vec::new())
}

fn limits() -> Limits {
    Limits::default()
}

async fn fetch(source: &Source) -> Result<Fetched, FetchError> {
    fetcher().fetch(source, None, &limits()).await
}

#[tokio::test]
async fn a_module_comes_by_https_from_a_server_that_is_trusted() {
    let authority = Authority::new("plugins");
    let identity = authority.server(&["localhost"]);
    let kind = || Kind::Scripted(Script::answer(answer(200, "", MODULE)));
    let server = Backend::start_tls("plugins", kind(), &identity).await;
    let url = format!("https://localhost:{}/stamp.wasm", server.address().port());
    let source = Source::Url(url);

    dataplane_testkit::certificate::install_crypto_provider();
    let trusting = Fetcher::new(false, authority.pem().as_bytes().to_vec());
    let fetched = trusting.fetch(&source, None, &limits()).await.unwrap();
    assert_eq!(fetched.module, MODULE);
    assert_eq!(fetched.digest, digest(MODULE));

    let error = fetch(&source).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn what_was_fetched_is_shared_and_a_digest_is_kept_to() {
    let server = Server::start(|_| one("/w", answer(200, "", MODULE))).await;
    let fetcher = fetcher();
    let source = server.url("/w");
    for _ in 0..3 {
        fetcher.fetch(&source, None, &limits()).await.unwrap();
    }
    let elsewhere = Source::Url("https://plugins.example.invalid/same".to_owned());
    let bounds = limits();
    let found = fetcher.fetch(&elsewhere, Some(digest(MODULE)), &bounds);
    assert_eq!(found.await.unwrap().module, MODULE);
    assert_eq!(server.asked().len(), 1, "asked once");

    let error = fetcher.fetch(&source, Some([7; 32]), &limits()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, FetchError::Digest { .. }), "{error}");
    assert_eq!(error.reason(), "digest");
}

#[tokio::test]
async fn a_server_that_fails_is_asked_again() {
    let bad = answer(503, "", b"");
    let answers = vec![bad.clone(), bad, answer(200, "", MODULE)];
    let server = Server::start(|_| HashMap::from([("/w".to_owned(), answers)])).await;
    assert!(fetch(&server.url("/w")).await.is_ok());
    assert_eq!(server.asked().len(), 3);

    let server = Server::start(|_| one("/w", answer(403, "", b""))).await;
    let error = fetch(&server.url("/w")).await.unwrap_err();
    assert!(
        error.to_string().contains("403: check the credentials"),
        "{error}"
    );
    assert_eq!(
        server.asked().len(),
        1,
        "another attempt would end the same"
    );
}

#[tokio::test]
async fn places_inside_are_refused_in_every_form() {
    for url in [
        "https://10.0.0.1/w",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00::1]/w",
        "https://[::ffff:192.168.0.1]/w",
        "https://0x0a000001/w",
        "https://2130706433.example.invalid@192.168.1.1/w",
    ] {
        let error = fetch(&Source::Url(url.to_owned())).await.unwrap_err();
        assert!(matches!(error, FetchError::Address(_)), "{url}: {error}");
        assert_eq!(error.reason(), "refused");
    }
    for url in [
        "http://plugins.example.com/w",
        "file:///etc/passwd",
        "ftp://x/y",
        "nothing",
    ] {
        let error = fetch(&Source::Url(url.to_owned())).await.unwrap_err();
        assert!(matches!(error, FetchError::Url(_)), "{url}: {error}");
    }
}

#[tokio::test]
async fn redirects_are_followed_within_bounds() {
    let server = Server::start(|address| {
        let to = |place: &str| answer(302, &format!("location: {place}\r\n"), b"");
        HashMap::from([
            ("/a".to_owned(), vec![to("/w")]),
            ("/w".to_owned(), vec![answer(200, "", MODULE)]),
            (
                "/loop".to_owned(),
                vec![to(&format!("http://{address}/loop"))],
            ),
            ("/inside".to_owned(), vec![to("https://10.0.0.1/w")]),
            ("/file".to_owned(), vec![to("file:///etc/passwd")]),
            ("/plain".to_owned(), vec![to("http://example.com/w")]),
        ])
    })
    .await;
    assert!(fetch(&server.url("/a")).await.is_ok());
    let reason = async |path| fetch(&server.url(path)).await.unwrap_err();
    assert!(matches!(reason("/loop").await, FetchError::Redirects(_)));
    assert!(matches!(reason("/inside").await, FetchError::Address(_)));
    assert!(matches!(reason("/file").await, FetchError::Url(_)));
    assert!(matches!(reason("/plain").await, FetchError::Url(_)));
}

#[tokio::test]
async fn size_and_time_are_bounded_and_only_modules_are_taken() {
    let large = [MODULE, &[0; 100]].concat();
    let server = Server::start(|_| {
        let mut endless = answer(200, "", &large);
        // Its length is not said.
        let text = String::from_utf8_lossy(&endless).replace("content-length: 108\r\n", "");
        endless = text.into_bytes();
        HashMap::from([
            ("/large".to_owned(), vec![answer(200, "", &large)]),
            ("/endless".to_owned(), vec![endless]),
            ("/page".to_owned(), vec![answer(200, "", b"<html>")]),
        ])
    })
    .await;
    let small = Limits {
        bytes_max: 50,
        ..limits()
    };
    for path in ["/large", "/endless"] {
        let error = fetcher().fetch(&server.url(path), None, &small).await;
        assert!(matches!(error, Err(FetchError::TooLarge(50))), "{path}");
    }
    let error = fetch(&server.url("/page")).await.unwrap_err();
    assert!(matches!(error, FetchError::NotAModule(_)), "{error}");

    let silent = Backend::start("silent", Kind::BlackHole).await;
    let source = Source::Url(format!("http://{}/w", silent.address()));
    let short = Limits {
        time_max: Duration::from_millis(200),
        ..limits()
    };
    let error = fetcher().fetch(&source, None, &short).await.unwrap_err();
    assert!(matches!(error, FetchError::Time(_)), "{error}");
}

/// A manifest with one layer of that type.
fn manifest(kind: &str, layer: &[u8]) -> Vec<u8> {
    let text = format!(
        r#"{{"schemaVersion": 2, "layers": [{{"mediaType": "{kind}", "digest": "{}", "size": {}}}]}}"#,
        named(layer),
        layer.len()
    );
    text.into_bytes()
}

/// A repository `plugins/stamp` with a tag `1`.
fn repository(kind: &str, layer: &[u8]) -> Answers {
    let manifest = manifest(kind, layer);
    let by_digest = format!("/v2/plugins/stamp/manifests/{}", named(&manifest));
    HashMap::from([
        (
            format!("/v2/plugins/stamp/blobs/{}", named(layer)),
            vec![answer(200, "", layer)],
        ),
        (by_digest, vec![answer(200, "", &manifest)]),
        (
            "/v2/plugins/stamp/manifests/1".to_owned(),
            vec![answer(200, "", &manifest)],
        ),
    ])
}

#[tokio::test]
async fn every_layout_of_wasm_images_is_pulled() {
    for kind in [
        "application/vnd.module.wasm.content.layer.v1+wasm",
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/wasm",
    ] {
        let server = Server::start(|_| repository(kind, MODULE)).await;
        let fetched = fetch(&server.image("plugins/stamp:1")).await.unwrap();
        assert_eq!(fetched.module, MODULE, "{kind}");
        let pinned = format!("plugins/stamp@{}", named(&manifest(kind, MODULE)));
        let fetched = fetch(&server.image(&pinned)).await.unwrap();
        assert_eq!(fetched.digest, digest(MODULE), "{kind}");
    }
    let server = Server::start(|_| repository("application/octet-stream", MODULE)).await;
    let error = fetch(&server.image("plugins/stamp:1")).await.unwrap_err();
    assert!(matches!(error, FetchError::Image(_)), "{error}");
}

#[tokio::test]
async fn a_registry_that_sends_something_else_is_not_believed() {
    let kind = "application/wasm";
    let server = Server::start(|_| {
        let mut answers = repository(kind, MODULE);
        for (path, answers) in &mut answers {
            if path.contains("/blobs/") {
                *answers = vec![answer(200, "", b"\0asm another")];
            }
        }
        answers
    })
    .await;
    let error = fetch(&server.image("plugins/stamp:1")).await.unwrap_err();
    assert!(matches!(error, FetchError::Digest { .. }), "{error}");
}

#[tokio::test]
async fn a_digest_that_cannot_be_checked_is_not_taken_for_one() {
    let server = Server::start(|_| HashMap::new()).await;
    let pinned = format!("plugins/stamp@sha512:{}", "0".repeat(128));
    let error = fetch(&server.image(&pinned)).await.unwrap_err();
    assert!(matches!(error, FetchError::Image(_)), "{error}");
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_token_is_fetched_with_the_pull_secret() {
    let server = Server::start(|address| {
        let realm = format!(
            "www-authenticate: Bearer realm=\"http://{address}/token\",service=\"plugins\"\r\n"
        );
        let mut answers = repository("application/wasm", MODULE);
        let list = answers.get_mut("/v2/plugins/stamp/manifests/1").unwrap();
        list.insert(0, answer(401, &realm, b""));
        let token = answer(200, "", br#"{"token": "t0ken"}"#);
        answers.insert("/token".to_owned(), vec![token]);
        answers
    })
    .await;
    let config = format!(
        r#"{{"auths": {{"{}": {{"username": "ann", "password": "hush"}}}}}}"#,
        server.address
    );
    let source = Source::Image {
        reference: format!("{}/plugins/stamp:1", server.address),
        credentials: Some(SecretText::new(config)),
    };
    assert!(!format!("{source:?}").contains("hush"));
    fetch(&source).await.unwrap();
    let asked = server.asked();
    let token = asked.iter().find(|head| head.contains("/token?")).unwrap();
    assert!(
        token.contains("authorization: Basic YW5uOmh1c2g="),
        "{token}"
    );
    assert!(
        token.contains("scope=repository%3Aplugins%2Fstamp%3Apull"),
        "{token}"
    );
    let blob = asked.iter().find(|head| head.contains("/blobs/")).unwrap();
    assert!(blob.contains("authorization: Bearer t0ken"), "{blob}");
}
