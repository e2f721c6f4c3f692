//! The echo backends of the quickstart, spoken to in each of their protocols.

use std::net::SocketAddr;

use bytes::Bytes;
use dataplane_testkit::client::grpc;
use dataplane_testkit::client::http1;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::websocket::{self, Message};
use futures_util::{SinkExt, StreamExt};
use shim::demo;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

async fn start() -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    demo::start_one("echo-1", listener, shutdown.clone());
    (addr, shutdown.drop_guard())
}

#[tokio::test]
async fn http_is_answered_with_what_arrived() {
    let (addr, _stop) = start().await;
    let told = http1::get(addr, "shop.test", "/a?b=c")
        .await
        .unwrap()
        .json();
    assert_eq!(told["backend"], "echo-1");
    assert_eq!(told["host"], "shop.test");
    assert_eq!(
        (&told["path"], &told["query"]),
        (&"/a".into(), &"b=c".into())
    );
    assert_eq!(told["protocol"], "HTTP/1.1");

    let client = Http2Client::connect(addr).await.unwrap();
    let told = client.get("shop.test", "/a").await.unwrap().json();
    assert_eq!(
        (&told["host"], &told["protocol"]),
        (&"shop.test".into(), &"HTTP/2".into())
    );
}

#[tokio::test]
async fn a_grpc_call_gets_its_message_back() {
    let (addr, _stop) = start().await;
    let client = Http2Client::connect(addr).await.unwrap();
    let path = "/nantian.demo.v1.Echo/Say";
    let reply = grpc::unary(&client, "grpc.test", path, &[], b"hello")
        .await
        .unwrap();
    assert_eq!(reply.status, Some(0));
    assert_eq!(reply.messages, [Bytes::from_static(b"hello")]);
}

#[tokio::test]
async fn a_websocket_gets_its_messages_back() {
    let (addr, _stop) = start().await;
    let (mut socket, _) = websocket::connect(addr, "ws.test", "/ws").await.unwrap();
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    socket.close(None).await.unwrap();
}
