//! Modules that come late, or not at all: what clients, metrics and the control plane are told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::within;
use ir::WasmPlugin;
use ir::wasm::{WasmFailure, WasmSource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{At, adds, both, plugin, serving_with};

/// A server of one module that answers with 503 until it is told otherwise.
struct Server {
    address: SocketAddr,
    is_well: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(module: Bytes) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_well, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (well, counted) = (is_well.clone(), asked.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                counted.fetch_add(1, Ordering::Relaxed);
                let (status, body) = match well.load(Ordering::Relaxed) {
                    true => (200, &module[..]),
                    false => (503, &b""[..]),
                };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
                );
                // A client that gives up is asked for nothing more.
                let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
            }
        });
        Self {
            address,
            is_well,
            asked,
            _task: task,
        }
    }

    fn plugin(&self) -> WasmPlugin {
        let url = format!("http://{}/plugin.wasm", self.address);
        WasmPlugin::new("shop/p", WasmSource::Url(url))
    }
}

/// A module without callbacks, as bytes, which is what servers hand out: a function without arguments, a
/// memory, and both exported.
fn module() -> Bytes {
    let name = b"proxy_abi_version_0_2_1";
    let mut bytes = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01".to_vec();
    bytes.extend(b"\x07\x24\x02\x06memory\x02\0\x17");
    bytes.extend(name);
    bytes.extend(b"\0\0\x0a\x04\x01\x02\0\x0b");
    bytes.into()
}

#[tokio::test]
async fn a_module_that_cannot_be_fetched_is_tried_again_by_itself() {
    let server = Server::start(module()).await;
    let rule = vec![server.plugin()];
    let setting = serving_with(
        At {
            rule,
            ..At::default()
        },
        |bootstrap| bootstrap.plugins.retry_after = Duration::from_millis(50),
    )
    .await;
    for answer in both(setting.port, "/", "").await {
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("plugin_failed"), "{}", answer.text());
    }
    let gateway = &setting.gateway;
    let lacking = || gateway.metric("plugin_module_lacking", &["shop/p"]);
    assert_eq!(lacking(), 1);
    server.is_well.store(true, Ordering::Relaxed);
    within("the module comes", async {
        while lacking() == 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for answer in both(setting.port, "/", "").await {
        assert_eq!(answer.status, 200);
    }
    assert!(gateway.metric("plugin_module_fetches_total", &["status"]) >= 1);
    assert_eq!(
        gateway.metric("plugin_module_fetches_total", &["\"ok\""]),
        1
    );
}

#[tokio::test]
async fn an_update_does_not_wait_for_what_could_not_be_fetched_before() {
    let server = Server::start(module()).await;
    let mut missing = server.plugin();
    missing.on_failure = WasmFailure::Open;
    let of = |letter| At {
        rule: vec![missing.clone()],
        listener: vec![plugin("infra/l", adds(letter))],
        ..At::default()
    };
    let setting = serving_with(of('1'), |bootstrap| {
        bootstrap.plugins.retry_after = Duration::from_secs(3600);
    })
    .await;
    let asked = server.asked.load(Ordering::Relaxed);
    let backends = [&setting.backends[0], &setting.backends[1]];
    let mut next = super::snapshot(setting.port, of('2'), backends);
    next.version = ir::Version::new("v2");
    setting.gateway.apply(&next).await;
    for answer in both(setting.port, "/", "").await {
        assert_eq!(answer.json()["headers"]["x-order"][0], "2");
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), asked);
}

#[tokio::test]
async fn a_refused_update_takes_no_module_from_the_configuration_that_serves() {
    let server = Server::start(module()).await;
    server.is_well.store(true, Ordering::Relaxed);
    let of = |rule| At {
        rule,
        ..At::default()
    };
    let setting = serving_with(of(vec![server.plugin()]), |_| {}).await;
    assert_eq!(server.asked.load(Ordering::Relaxed), 1);
    server.is_well.store(false, Ordering::Relaxed);

    let backends = [&setting.backends[0], &setting.backends[1]];
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let taken = taken.local_addr().unwrap().port();
    let control_plane = &setting.gateway.control_plane;
    let mut refused = super::snapshot(taken, of(Vec::new()), backends);
    refused.version = ir::Version::new("v2");
    control_plane.push_snapshot(&refused).await;
    control_plane.nacked("v2").await;

    let mut next = super::snapshot(setting.port, of(vec![server.plugin()]), backends);
    next.version = ir::Version::new("v3");
    setting.gateway.apply(&next).await;
    for answer in both(setting.port, "/", "").await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 1);
}
