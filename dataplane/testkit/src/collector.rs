//! A collector of OpenTelemetry that takes traces and logs by OTLP, over gRPC and over HTTP.
//!
//! It tells the two apart by the first bytes of a connection, or behind TLS by ALPN, decodes what
//! comes without the types of the other side, and remembers it. One that hangs accepts and reads, and never answers.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

mod protobuf;

use protobuf::Message;

use crate::backend::Secured;
use crate::certificate::Identity;

/// A running collector; stops when it is dropped.
pub struct Collector {
    address: SocketAddr,
    is_tls: bool,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
    requests: usize,
}

/// A span as it came.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Hexadecimal.
    pub trace_id: String,
    /// Hexadecimal.
    pub span_id: String,
    /// Hexadecimal; empty for none.
    pub parent_id: String,
    /// The trace's state.
    pub trace_state: String,
    /// Its name.
    pub name: String,
    /// 2 of a server, 3 of a client.
    pub kind: u64,
    /// Nanoseconds since 1970.
    pub began: u64,
    /// The same.
    pub ended: u64,
    /// 0 unset, 1 ok, 2 error.
    pub status: u64,
    /// Its attributes.
    pub attributes: BTreeMap<String, Value>,
    /// The traces it is linked to, and by which spans; hexadecimal.
    pub links: Vec<(String, String)>,
    /// Who sent it.
    pub resource: BTreeMap<String, Value>,
}

/// A record of a log as it came.
#[derive(Clone, Debug, Default)]
pub struct LogRecord {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// `INFO` and the like.
    pub severity: String,
    /// What it says.
    pub body: Value,
    /// Hexadecimal; empty for none.
    pub trace_id: String,
    /// Hexadecimal; empty for none.
    pub span_id: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, Value>,
    /// Who sent it.
    pub resource: BTreeMap<String, Value>,
}

impl Collector {
    /// Starts one that answers.
    pub async fn start() -> Self {
        Self::with(true, None).await
    }

    /// Starts one that never answers.
    pub async fn hanging() -> Self {
        Self::with(false, None).await
    }

    /// Starts one that answers and speaks TLS, as `localhost` or whatever else the certificate says.
    pub async fn secured(identity: &Identity) -> Self {
        let tls = Secured::new(identity).alpn(&["h2", "http/1.1"]);
        Self::with(true, Some(tls.acceptor())).await
    }

    async fn with(answers: bool, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has one");
        let seen = Arc::<Mutex<Seen>>::default();
        let mut tasks = JoinSet::new();
        let of_all = seen.clone();
        let is_tls = tls.is_some();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls) = (of_all.clone(), tls.clone());
                connections.spawn(async move {
                    let _ = serve(stream, tls, seen, answers).await;
                });
            }
        });
        Self {
            address,
            is_tls,
            seen,
            _tasks: tasks,
        }
    }

    /// As settings name it.
    pub fn endpoint(&self) -> String {
        match self.is_tls {
            // A certificate is for a name.
            true => format!("https://localhost:{}", self.address.port()),
            false => format!("http://{}", self.address),
        }
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.seen).spans.clone()
    }

    /// Every record of a log so far.
    pub fn logs(&self) -> Vec<LogRecord> {
        lock(&self.seen).logs.clone()
    }

    /// Batches that came, answered or not.
    pub fn requests(&self) -> usize {
        lock(&self.seen).requests
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    seen: Arc<Mutex<Seen>>,
    answers: bool,
) -> io::Result<()> {
    if let Some(tls) = tls {
        let stream = tls.accept(stream).await?;
        let is_grpc = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        return serve_one(stream, is_grpc, seen, answers).await;
    }
    let mut first = [0; 3];
    while stream.peek(&mut first).await? < first.len() {
        tokio::task::yield_now().await;
    }
    serve_one(stream, &first == b"PRI", seen, answers).await
}

async fn serve_one<S>(
    stream: S,
    is_grpc: bool,
    seen: Arc<Mutex<Seen>>,
    answers: bool,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if is_grpc {
        let serving = serve_grpc(stream, seen, answers);
        return serving.await.map_err(io::Error::other);
    }
    let service =
        service_fn(move |request: hyper::Request<Incoming>| answer(request, seen.clone(), answers));
    let http1 = hyper::server::conn::http1::Builder::new();
    let serving = http1.serve_connection(TokioIo::new(stream), service);
    serving.await.map_err(io::Error::other)
}

async fn answer(
    request: hyper::Request<Incoming>,
    seen: Arc<Mutex<Seen>>,
    answers: bool,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    take(&seen, &path, &body);
    if !answers {
        std::future::pending::<()>().await;
    }
    Ok(Response::new(Full::default()))
}

async fn serve_grpc<S>(stream: S, seen: Arc<Mutex<Seen>>, answers: bool) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::handshake(stream).await?;
    let mut held = Vec::new();
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        let seen = seen.clone();
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let mut call = tokio::spawn(async move {
            let mut bytes = BytesMut::new();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                bytes.extend_from_slice(&data);
            }
            // A flag and the length come before the message.
            take(&seen, &path, bytes.get(5..).unwrap_or_default());
            if !answers {
                return Some((respond, body));
            }
            let mut head = Response::new(());
            let grpc = HeaderValue::from_static("application/grpc");
            head.headers_mut().insert("content-type", grpc);
            let mut stream = respond.send_response(head, false).ok()?;
            stream.send_data(Bytes::from_static(&[0; 5]), false).ok()?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = stream.send_trailers(trailers);
            None
        });
        if !answers {
            // Bodies only move while the connection is driven.
            tokio::select! {
                done = &mut call => held.extend(done.ok().flatten()),
                _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => {}
            }
        }
    }
    Ok(())
}

fn take(seen: &Mutex<Seen>, path: &str, body: &[u8]) {
    let message = Message::read(body);
    let mut seen = lock(seen);
    seen.requests += 1;
    let is_logs = path.ends_with("/v1/logs") || path.contains("LogsService");
    for of_resource in message.messages(1) {
        let resource = of_resource.messages(1).map(|it| attributes(&it, 1)).next();
        let resource = resource.unwrap_or_default();
        for scope in of_resource.messages(2) {
            for record in scope.messages(2) {
                if is_logs {
                    seen.logs.push(log_record(&record, resource.clone()));
                } else {
                    seen.spans.push(span(&record, resource.clone()));
                }
            }
        }
    }
}

fn span(message: &Message, resource: BTreeMap<String, Value>) -> Span {
    let links = message.messages(13);
    let status = message.messages(15).next();
    Span {
        trace_id: message.hex(1),
        span_id: message.hex(2),
        trace_state: message.text(3),
        parent_id: message.hex(4),
        name: message.text(5),
        kind: message.number(6),
        began: message.number(7),
        ended: message.number(8),
        attributes: attributes(message, 9),
        links: links.map(|link| (link.hex(1), link.hex(2))).collect(),
        status: status.map_or(0, |status| status.number(3)),
        resource,
    }
}

fn log_record(message: &Message, resource: BTreeMap<String, Value>) -> LogRecord {
    LogRecord {
        time: message.number(1),
        severity: message.text(3),
        body: message
            .messages(5)
            .next()
            .map_or(Value::Null, |it| value(&it)),
        attributes: attributes(message, 6),
        trace_id: message.hex(9),
        span_id: message.hex(10),
        resource,
    }
}

fn attributes(message: &Message, field: u64) -> BTreeMap<String, Value> {
    let pairs = message.messages(field).map(|pair| {
        let held = pair.messages(2).next();
        (pair.text(1), held.map_or(Value::Null, |it| value(&it)))
    });
    pairs.collect()
}

/// An `AnyValue`.
fn value(message: &Message) -> Value {
    if message.has(1) {
        Value::from(message.text(1))
    } else if message.has(2) {
        Value::from(message.number(2) != 0)
    } else if message.has(3) {
        Value::from(message.number(3).cast_signed())
    } else if message.has(4) {
        Value::from(f64::from_bits(message.number(4)))
    } else if let Some(array) = message.messages(5).next() {
        array.messages(1).map(|it| value(&it)).collect()
    } else {
        Value::Null
    }
}
