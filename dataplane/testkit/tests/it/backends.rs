//! Backends do what requests ask of them, and clients show what came.

use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step, closed_address};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::{TlsClient, agreed};
use dataplane_testkit::client::websocket::{self, Message};
use dataplane_testkit::client::{ClientError, grpc};
use dataplane_testkit::{Backend, until, within};
use futures_util::{SinkExt, StreamExt};
use http::Request;

#[tokio::test]
async fn both_http_backends_describe_the_request() {
    let one = Backend::http1("one").await;
    let two = Backend::http2("two").await;
    let request = || {
        Request::post(format!("http://{}/a?x=1", two.address()))
            .header("x-a", "b")
            .body(Bytes::from_static(b"hello"))
            .unwrap()
    };
    let mut plain = request();
    *plain.uri_mut() = "/a?x=1".parse().unwrap();
    plain.headers_mut().insert("host", "a.b".parse().unwrap());

    let mut client = Http1Client::connect(one.address()).await.unwrap();
    let first = client.send(plain).await.unwrap().json();
    let client = Http2Client::connect(two.address()).await.unwrap();
    let second = client.send(request()).await.unwrap().json();

    for (json, backend) in [(&first, "one"), (&second, "two")] {
        assert_eq!(json["backend"], backend);
        assert_eq!(json["method"], "POST");
        assert_eq!(json["path"], "/a");
        assert_eq!(json["query"], "x=1");
        assert_eq!(json["headers"]["x-a"][0], "b");
        assert_eq!(json["body_bytes"], 5);
        assert_eq!(json["number"], 1);
    }
    assert_eq!((one.requests(), one.connections()), (1, 1));
    assert_eq!(one.request_lines(), ["POST /a?x=1"]);
}

#[tokio::test]
async fn a_request_gets_what_it_asks_for() {
    let one = Backend::http1("one").await;
    let two = Backend::http2("two").await;
    let h2 = Http2Client::connect(two.address()).await.unwrap();
    let path = "/?status=503&bytes=100000&trailers";
    let request = Request::get(path)
        .header("host", "a")
        .header("te", "trailers")
        .body(Bytes::new())
        .unwrap();
    let mut h1 = Http1Client::connect(one.address()).await.unwrap();

    let first = h1.send(request).await.unwrap();
    let second = h2.get("a", path).await.unwrap();

    for (response, backend) in [(first, "one"), (second, "two")] {
        assert_eq!(response.status, 503);
        assert_eq!(response.body.len(), 100_000);
        assert_eq!(response.header("x-backend"), backend);
        assert_eq!(response.header("content-length"), "");
        assert_eq!(response.trailer("x-trailer"), backend);
    }
}

#[tokio::test]
async fn echo_is_the_body_as_it_was() {
    // More than windows and socket buffers hold, so both ways must flow at once.
    let body = Bytes::from(vec![7; 20_000_000]);
    let one = Backend::http1("one").await;
    let two = Backend::http2("two").await;
    let request = Request::post("http://a/echo").body(body.clone()).unwrap();
    let h2 = Http2Client::connect(two.address()).await.unwrap();
    assert!(h2.send(request).await.unwrap().body == body);

    let request = Request::post("/echo")
        .header("host", "a")
        .body(body.clone());
    let mut h1 = Http1Client::connect(one.address()).await.unwrap();
    assert!(h1.send(request.unwrap()).await.unwrap().body == body);
}

#[tokio::test]
async fn cut_answers_are_seen_as_cut() {
    let one = Backend::http1("one").await;
    let two = Backend::http2("two").await;
    let h2 = Http2Client::connect(two.address()).await.unwrap();
    for path in ["/?close=head", "/?close=body", "/?close=body&bytes=50000"] {
        let first = http1::get(one.address(), "a", path).await;
        assert!(matches!(first, Err(ClientError::Closed(_))), "{first:?}");
        let second = h2.get("a", path).await.unwrap_err();
        assert_eq!(second.reset_reason(), Some(h2::Reason::INTERNAL_ERROR));
    }
}

#[tokio::test]
async fn grpc_echoes_streams_and_fails_on_request() {
    let backend = Backend::start("g", Kind::Grpc).await;
    let client = Http2Client::connect(backend.address()).await.unwrap();

    let reply = grpc::unary(&client, "a", "/t.Echo/Unary", &[], b"hi").await;
    let reply = reply.unwrap();
    assert_eq!(
        (reply.status, &reply.messages[..]),
        (Some(0), &[Bytes::from("hi")][..])
    );

    let want = [("x-want", "count=3")];
    let reply = grpc::unary(&client, "a", "/t.Echo/ServerStream", &want, b"hi").await;
    assert_eq!(reply.unwrap().messages.len(), 3);

    let want = [("x-want", "grpc_status=7")];
    let reply = grpc::unary(&client, "a", "/t.Echo/Unary", &want, b"hi").await;
    assert_eq!(reply.unwrap().status, Some(7));

    let mut call = grpc::GrpcCall::open(&client, "a", "/t.Echo/Bidi", &[])
        .await
        .unwrap();
    for word in ["one", "two"] {
        call.send(word.as_bytes()).await.unwrap();
        assert_eq!(call.next().await.unwrap().unwrap(), word);
    }
    call.finish().unwrap();
    assert_eq!(call.reply().await.unwrap().status, Some(0));
}

#[tokio::test]
async fn websocket_echoes_and_closes() {
    let backend = Backend::start("w", Kind::WebSocket).await;
    let (mut socket, response) = websocket::connect(backend.address(), "a", "/chat")
        .await
        .unwrap();
    assert_eq!(response.headers()["x-backend"], "w");
    socket.send(Message::text("hi")).await.unwrap();
    assert_eq!(
        within("echo", socket.next()).await.unwrap().unwrap(),
        Message::text("hi")
    );
    socket.send(Message::text("close")).await.unwrap();
    let end = within("close", socket.next()).await;
    assert!(matches!(end, Some(Ok(Message::Close(_)))), "{end:?}");
}

#[tokio::test]
async fn scripts_are_followed_to_the_letter() {
    let answer = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let polite = Backend::start("p", Kind::Scripted(Script::answer(answer))).await;
    let response = http1::get(polite.address(), "a", "/").await.unwrap();
    assert_eq!(
        (response.text().as_str(), response.interim.len()),
        ("ok", 1)
    );
    assert_eq!(polite.request_lines(), ["GET /"]);

    let script = Script::new([Step::Read(3), Step::Send("HTTP/".into()), Step::Reset]);
    let rude = Backend::start("r", Kind::Scripted(script)).await;
    let result = http1::get(rude.address(), "a", "/").await;
    assert!(
        matches!(result, Err(ClientError::Io(_) | ClientError::Closed(_))),
        "{result:?}"
    );

    let echo = Backend::start("e", Kind::TcpEcho).await;
    let mut client = Http1Client::connect(echo.address()).await.unwrap();
    client.send_bytes(b"anything").await.unwrap();
    client.finish().await.unwrap();
    assert_eq!(client.read_to_end().await.unwrap(), "anything");
}

#[tokio::test]
async fn backends_behind_tls_agree_on_their_protocol() {
    let authority = Authority::new("test");
    let identity = authority.server(&["a.test"]);
    let one = Backend::start_tls("one", Kind::Http1, &identity).await;
    let two = Backend::start_tls("two", Kind::Http2, &identity).await;
    let client = TlsClient::trusting(&authority).alpn(&["h2", "http/1.1"]);

    let stream = client.connect(one.address(), "a.test").await.unwrap();
    assert_eq!(agreed(&stream).alpn.as_deref(), Some("http/1.1"));
    let response = Http1Client::over(stream).get("a.test", "/").await.unwrap();
    assert_eq!(response.json()["backend"], "one");

    let stream = client.connect(two.address(), "a.test").await.unwrap();
    let http2 = Http2Client::over(stream).await.unwrap();
    assert_eq!(
        http2.get("a.test", "/").await.unwrap().json()["backend"],
        "two"
    );
}

#[tokio::test]
async fn a_stopped_backend_is_gone_and_its_connections_are_cut() {
    let backend = Backend::start("b", Kind::BlackHole).await;
    let address = backend.address();
    let mut client = Http1Client::connect(address).await.unwrap();
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(Duration::from_secs(5), async || {
        backend.open_connections() == 1
    })
    .await;
    backend.stop().await;
    assert!(client.is_closed().await.unwrap());
    for address in [address, closed_address()] {
        assert!(matches!(
            Http1Client::connect(address).await,
            Err(ClientError::Io(_))
        ));
    }
}
