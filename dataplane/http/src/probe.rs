//! One health check of one endpoint.
//!
//! Called by the `dataplane` crate for each check that is due, on a thread without traffic. The
//! endpoint is dialled as an attempt would dial it, with its cluster's TLS, and a connection serves
//! one check only; nothing here counts for the limits of the cluster. When checks are due, and what
//! follows from them, is the caller's.

use std::future::poll_fn;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use dataplane_config::ClusterConfig;
use dataplane_resilience::health_check::{Fault, Settings as Check};
use dataplane_route::table::RouteKind;
use dataplane_telemetry::Reason;
use dataplane_upstream::Endpoint;
use ir::backend_policy::{HealthCheck, Probe};

use crate::exchange::{Peer, Spoken, dial};
use crate::h1::{self, HeadLimits};
use crate::io::Io;
use crate::settings::Settings;

/// What endpoints see as the asking program.
const USER_AGENT: &str = "nantian-gateway-health-check";
/// A health message is a few bytes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Asks the endpoint whether it is well, within the check's time.
pub async fn probe(
    cluster: &ClusterConfig,
    endpoint: &Endpoint,
    source: &HealthCheck,
    check: &Check,
    settings: &Settings,
) -> Result<(), Fault> {
    let asking = ask(cluster, endpoint, source, settings);
    timeout(check.timeout, asking)
        .await
        .unwrap_or(Err(Fault::Timeout))
}

async fn ask(
    cluster: &ClusterConfig,
    endpoint: &Endpoint,
    source: &HealthCheck,
    settings: &Settings,
) -> Result<(), Fault> {
    let kind = match source.probe {
        Probe::Grpc { .. } => RouteKind::Grpc,
        Probe::Tcp | Probe::Http { .. } => RouteKind::Http,
    };
    // Whom to trust is not known, so no traffic goes there either.
    let peer = Peer::new(endpoint, cluster, kind, None, None, settings).map_err(|_| Fault::Tls)?;
    let peer = match source.port {
        Some(port) => peer.beside(port, kind),
        None => peer,
    };
    if source.probe == Probe::Tcp {
        return peer.connect().await.map_err(|_| Fault::Connect);
    }
    let (io, spoken) = dial(&peer).await.map_err(|reason| match reason {
        Reason::UpstreamTls | Reason::UpstreamCertificate => Fault::Tls,
        _ => Fault::Connect,
    })?;
    let address = peer.address().to_string();
    match &source.probe {
        Probe::Tcp => Ok(()),
        Probe::Http {
            path,
            host,
            expected_statuses,
        } => {
            let host = host.as_deref().unwrap_or(&address);
            let status = match spoken {
                Spoken::Http1 => http1(io, host, path, &settings.response_head).await?,
                Spoken::Http2 => http2(io, get(peer.is_secured(), host, path)?).await?,
            };
            match expected_statuses.is_empty() {
                true if (200..300).contains(&status) => Ok(()),
                false if expected_statuses.contains(&status) => Ok(()),
                _ => Err(Fault::Status(status)),
            }
        }
        Probe::Grpc { service } => {
            let uri = uri(peer.is_secured(), &address, "/grpc.health.v1.Health/Check")?;
            grpc(io, uri, service).await
        }
    }
}

/// The status of a GET over HTTP/1.1.
async fn http1(mut io: Io, host: &str, path: &str, limits: &HeadLimits) -> Result<u16, Fault> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\naccept: */*\r\n\
         connection: close\r\n\r\n"
    );
    let broken = |_| Fault::Broken;
    io.write_all(request.as_bytes()).await.map_err(broken)?;
    io.flush().await.map_err(broken)?;
    let mut buf = BytesMut::new();
    let mut scan = 0;
    loop {
        match h1::response_head(&mut buf, &mut scan, limits, &Method::GET) {
            Ok(Some(head)) if head.status.is_informational() => scan = 0,
            Ok(Some(head)) => return Ok(head.status.as_u16()),
            Ok(None) => {
                if io.read_buf(&mut buf).await.map_err(broken)? == 0 {
                    return Err(Fault::Broken);
                }
            }
            Err(_) => return Err(Fault::Malformed),
        }
    }
}

fn uri(is_secured: bool, authority: &str, path: &str) -> Result<Uri, Fault> {
    let scheme = if is_secured { "https" } else { "http" };
    let path: PathAndQuery = path.parse().map_err(|_| Fault::Malformed)?;
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| Fault::Malformed)
}

fn get(is_secured: bool, host: &str, path: &str) -> Result<Request<()>, Fault> {
    let mut request = Request::new(());
    *request.uri_mut() = uri(is_secured, host, path)?;
    let agent = HeaderValue::from_static(USER_AGENT);
    request.headers_mut().insert(header::USER_AGENT, agent);
    Ok(request)
}

/// The status of a request over HTTP/2.
async fn http2(io: Io, request: Request<()>) -> Result<u16, Fault> {
    let (send, connection) = handshake(io).await?;
    let asking = async {
        let mut send = send.ready().await.map_err(|_| Fault::Broken)?;
        let (response, _) = send
            .send_request(request, true)
            .map_err(|_| Fault::Broken)?;
        let response = response.await.map_err(|_| Fault::Broken)?;
        Ok(response.status().as_u16())
    };
    beside(connection, asking).await
}

type Connection = h2::client::Connection<Io, Bytes>;

async fn handshake(io: Io) -> Result<(h2::client::SendRequest<Bytes>, Connection), Fault> {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(16 * 1024);
    builder.handshake(io).await.map_err(|_| Fault::Broken)
}

/// Drives the connection as long as somebody asks over it.
async fn beside<T>(
    mut connection: Connection,
    asking: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let mut asking = std::pin::pin!(asking);
    poll_fn(|cx| {
        let ended = std::pin::Pin::new(&mut connection).poll(cx);
        match asking.as_mut().poll(cx) {
            std::task::Poll::Pending if ended.is_ready() => {
                std::task::Poll::Ready(Err(Fault::Broken))
            }
            asked => asked,
        }
    })
    .await
}

/// `grpc.health.v1.Health/Check`.
async fn grpc(io: Io, uri: Uri, service: &str) -> Result<(), Fault> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/grpc"),
        (header::TE, "trailers"),
        (header::USER_AGENT, USER_AGENT),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let (send, connection) = handshake(io).await?;
    let asking = async {
        let mut send = send.ready().await.map_err(|_| Fault::Broken)?;
        let (response, mut body) = send
            .send_request(request, false)
            .map_err(|_| Fault::Broken)?;
        body.send_data(question(service), true)
            .map_err(|_| Fault::Broken)?;
        let response = response.await.map_err(|_| Fault::Broken)?;
        answer(response).await
    };
    beside(connection, asking).await
}

/// What the answer of a health service says.
async fn answer(response: http::Response<h2::RecvStream>) -> Result<(), Fault> {
    if response.status() != 200 {
        return Err(Fault::Status(response.status().as_u16()));
    }
    grpc_status(response.headers())?;
    let mut body = response.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|_| Fault::Broken)?;
        let _ = body.flow_control().release_capacity(data.len());
        if message.len() + data.len() > MESSAGE_BYTES_MAX {
            return Err(Fault::Malformed);
        }
        message.extend_from_slice(&data);
    }
    if let Some(trailers) = body.trailers().await.map_err(|_| Fault::Broken)? {
        grpc_status(&trailers)?;
    }
    match serving_status(&message) {
        Some(SERVING) => Ok(()),
        Some(_) => Err(Fault::NotServing),
        None => Err(Fault::Malformed),
    }
}

/// An error when the call did not end well.
fn grpc_status(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(status) = headers.get("grpc-status") else {
        return Ok(());
    };
    let status = status.to_str().ok().and_then(|text| text.parse().ok());
    match status {
        Some(0) => Ok(()),
        status => Err(status.map_or(Fault::Malformed, Fault::GrpcStatus)),
    }
}

/// `HealthCheckRequest { service }` in its frame.
fn question(service: &str) -> Bytes {
    /// Field 1, length delimited.
    const SERVICE: u8 = 0x0a;
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(SERVICE);
        let mut len = service.len();
        while len >= 0x80 {
            message.put_u8(low_bits(len) | 0x80);
            len >>= 7;
        }
        message.put_u8(low_bits(len));
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

/// The lowest seven.
fn low_bits(number: usize) -> u8 {
    u8::try_from(number & 0x7f).unwrap_or(0x7f)
}

/// `status` of a `HealthCheckResponse` in its frame; 0 (UNKNOWN) when it is absent.
fn serving_status(framed: &[u8]) -> Option<u64> {
    /// Field 1, varint.
    const STATUS: u64 = 0x08;
    let (head, mut message) = framed.split_at_checked(5)?;
    let (&[is_compressed], len) = head.split_at_checked(1)? else {
        return None;
    };
    let len = u32::from_be_bytes(len.try_into().ok()?);
    if is_compressed != 0 || usize::try_from(len).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag == STATUS {
                    status = value;
                }
            }
            2 => {
                let len = usize::try_from(varint(&mut message)?).ok()?;
                message = message.split_at_checked(len)?.1;
            }
            5 => message = message.split_at_checked(4)?.1,
            1 => message = message.split_at_checked(8)?.1,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_a_message_in_its_frame() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], b"\x00\x00\x00\x00\x04\x0a\x02ab");
        let long = "s".repeat(300);
        let framed = question(&long);
        assert_eq!(framed[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
        assert_eq!(framed.len(), 5 + 1 + 2 + 300);
    }

    #[test]
    fn answers_are_read_and_nonsense_is_refused() {
        let framed = |message: &[u8]| {
            let mut framed = vec![0];
            framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            framed.extend_from_slice(message);
            framed
        };
        for (message, expected) in [
            (&b"\x08\x01"[..], Some(1)),
            (b"\x08\x02", Some(2)),
            (b"", Some(0)),
            (b"\x12\x02hi\x08\x01", Some(1)),
            (b"\x1d\x00\x00\x00\x00\x08\x01", Some(1)),
            (b"\x08", None),
            (b"\x12\x09hi", None),
            (b"\x0b", None),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                None,
            ),
        ] {
            assert_eq!(serving_status(&framed(message)), expected, "{message:?}");
        }
        for framed in [
            &b""[..],
            b"\x00\x00",
            b"\x01\x00\x00\x00\x02\x08\x01",
            b"\x00\x00\x00\x00\x03\x08\x01",
        ] {
            assert_eq!(serving_status(framed), None, "{framed:?}");
        }
    }

    /// A health service that says this, over HTTP/2 in plain text.
    async fn service(status: u8, grpc_status: &'static str) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .body(())
                        .unwrap();
                    let mut body = respond.send_response(response, false).unwrap();
                    let message = vec![0, 0, 0, 0, 2, 8, status];
                    body.send_data(message.into(), false).unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static(grpc_status));
                    body.send_trailers(trailers).unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_grpc_service_is_well_when_it_says_so() {
        for (status, grpc_status, expected) in [
            (1, "0", Ok(())),
            (2, "0", Err(Fault::NotServing)),
            (0, "0", Err(Fault::NotServing)),
            (1, "12", Err(Fault::GrpcStatus(12))),
            (1, "x", Err(Fault::Malformed)),
        ] {
            let address = service(status, grpc_status).await;
            let source = dataplane_testkit::snapshot::cluster(
                "shop/b:80",
                ir::cluster::ClusterProtocol::Tcp,
                &[address],
            );
            let source = std::sync::Arc::new(source);
            let cluster = dataplane_upstream::Cluster::compile(&source, None);
            let cluster = ClusterConfig {
                access: None,
                cluster,
                tls: dataplane_config::ClusterTls::default(),
                metrics: dataplane_telemetry::metrics::Metrics::new().backend(&"shop/b:80".into()),
                retries: std::sync::Arc::default(),
                retry_allowance: None,
                breaker: None,
                limits: dataplane_config::Limits::default(),
                ai: None,
                plugins: Vec::new(),
                session: None,
            };
            let check = HealthCheck {
                probe: Probe::Grpc {
                    service: "cart".to_owned(),
                },
                interval: None,
                timeout: None,
                unhealthy_threshold: None,
                healthy_threshold: None,
                port: None,
            };
            let endpoint = cluster.cluster.endpoints()[0].clone();
            let settings = Settings::default();
            let asked = probe(&cluster, &endpoint, &check, &Check::default(), &settings).await;
            assert_eq!(asked, expected, "{status} {grpc_status}");
        }
    }
}
