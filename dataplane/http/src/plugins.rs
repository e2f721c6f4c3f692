//! One request's way through its plugins: which it met, what they are told, their part in bodies.
//!
//! Made by the plugin phase with the first plugin that a request meets; requests without plugins have
//! none. Heads and bodies change form here, between what the proxy and what plugins see; what a plugin may
//! do to them is checked on the way back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::select_all;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use dataplane_telemetry::{GrpcStatus, Reason};
use dataplane_tls::ClientFacts;
use dataplane_wasm::facts::{Fact, Facts};
use dataplane_wasm::head::Head;
use dataplane_wasm::{Direction, Failed, LocalResponse, Piece, Stream};

use crate::arrival::Arrival;
use crate::h1::{Authority, BodyLength, Frame};
use crate::message::{Request, Response, decimal, is_large};
use crate::plugin_flags::flags;
use crate::reply::Reply;

/// The plugins that one request met, in their order.
pub(crate) struct Running {
    pub(crate) streams: Vec<Rc<Stream>>,
    pub(crate) facts: Rc<RequestFacts>,
    /// What the client spoke.
    pub(crate) scheme: &'static str,
    /// They saw the head of a response; no other one is shown to them.
    pub(crate) saw_response: Cell<bool>,
    /// The request's head as it was sent on was given to those that may ask for it.
    has_sent: Cell<bool>,
}

impl Running {
    pub(crate) fn new(
        client: IpAddr,
        started: Instant,
        arrival: &Arrival,
        scheme: &'static str,
        request: &Request,
    ) -> Self {
        let client = SocketAddr::new(client, arrival.client.port());
        Self {
            streams: Vec::new(),
            scheme,
            saw_response: Cell::new(false),
            has_sent: Cell::new(false),
            facts: Rc::new(RequestFacts::new(client, started, arrival, request)),
        }
    }

    /// The request's head is as it is sent on: plugins may read it from now on. Only once, because later
    /// there may be less of it.
    pub(crate) fn request_sent(&self, request: &Request) {
        if self.has_sent.replace(true) {
            return;
        }
        self.sent(Direction::Request, || kept_request(request, self.scheme));
    }

    /// The same of a response.
    pub(crate) fn response_sent(&self, response: &Response) {
        self.sent(Direction::Response, || kept_response(response));
    }

    /// The trailers of the response go out; those that are called at the end may read them then.
    pub(crate) fn trailers_sent(&self, trailers: &HeaderMap) {
        let mut made = None;
        for stream in self.streams.iter().filter(|it| it.sees_end()) {
            let kept = || Rc::new(Head::of(trailers.clone()).unshared());
            stream.sent_trailers(made.get_or_insert_with(kept));
        }
    }

    fn sent(&self, direction: Direction, head: impl Fn() -> Head) {
        let mut made = None;
        for stream in &self.streams {
            if stream.rereads(direction) {
                stream.sent(direction, made.get_or_insert_with(|| Rc::new(head())));
            }
        }
    }

    /// What bodies of that direction go through; nothing when no plugin wants them.
    pub(crate) fn body(&self, direction: Direction) -> Option<Box<BodyLine>> {
        let wants = |stream: &&Rc<Stream>| stream.wants_body(direction);
        let mut chain: Vec<_> = self.streams.iter().filter(wants).cloned().collect();
        if chain.is_empty() {
            return None;
        }
        if direction == Direction::Response {
            chain.reverse();
        }
        Some(Box::new(BodyLine {
            chain: chain.into(),
            direction,
            facts: self.facts.clone(),
            raw: VecDeque::new(),
            done: VecDeque::new(),
            had_trailers: false,
            running: None,
            held: None,
        }))
    }
}

/// What became of a frame: those that follow from it, or the answer that ends the request.
type Passed = Result<VecDeque<Frame>, Box<Reply>>;

/// A body on its way through plugins.
pub(crate) struct BodyLine {
    chain: Rc<[Rc<Stream>]>,
    direction: Direction,
    facts: Rc<RequestFacts>,
    /// Frames that were read before.
    raw: VecDeque<Frame>,
    /// Frames that passed.
    done: VecDeque<Frame>,
    had_trailers: bool,
    running: Option<Way>,
    /// What a plugin holds back and may let go before another frame comes.
    held: Option<Way>,
}

/// Frames on their way.
type Way = Pin<Box<dyn Future<Output = Passed>>>;

impl BodyLine {
    /// Frames that were read already come first.
    pub(crate) fn begin_with(&mut self, frames: impl Iterator<Item = Frame>) {
        self.raw.extend(frames);
    }

    /// What follows from a frame that is at hand; behind [`Frame::End`] there must be no other.
    pub(crate) async fn pass(&mut self, frame: Frame) -> Passed {
        self.way_of(frame).await
    }

    fn way_of(&mut self, frame: Frame) -> impl Future<Output = Passed> + use<> {
        let had_trailers = self.had_trailers;
        self.had_trailers |= matches!(frame, Frame::Trailers(_));
        let (chain, facts) = (self.chain.clone(), self.facts.clone());
        let frames = VecDeque::from([frame]);
        through(chain, 0, facts, self.direction, frames, had_trailers)
    }

    /// What follows when a plugin lets go of what it holds; nothing while none holds anything.
    fn way_of_held(&self) -> Option<Way> {
        let direction = self.direction;
        let let_go = |(at, stream): (usize, &Rc<Stream>)| {
            let stream = stream.clone();
            let holds = stream.holds(direction);
            holds.then(|| Box::pin(async move { (at, stream.let_go(direction).await) }))
        };
        let holding: Vec<_> = self.chain.iter().enumerate().filter_map(let_go).collect();
        if holding.is_empty() {
            return None;
        }
        let (chain, facts, had_trailers) =
            (self.chain.clone(), self.facts.clone(), self.had_trailers);
        Some(Box::pin(async move {
            let ((at, piece), ..) = select_all(holding).await;
            let frames = passed(piece, &facts)?.into_iter().collect();
            through(chain, at + 1, facts, direction, frames, had_trailers).await
        }))
    }

    /// The next frame that passed; `next` gives those that come in. Behind [`Frame::End`] it must not be
    /// asked again.
    pub(crate) fn poll<E: From<Box<Reply>>>(
        &mut self,
        cx: &mut Task<'_>,
        mut next: impl FnMut(&mut Task<'_>) -> Poll<Result<Frame, E>>,
    ) -> Poll<Result<Frame, E>> {
        loop {
            if let Some(frame) = self.done.pop_front() {
                return Poll::Ready(Ok(frame));
            }
            if let Some(running) = &mut self.running {
                let done = ready!(running.as_mut().poll(cx));
                self.running = None;
                self.done = done?;
                continue;
            }
            let frame = match self.raw.pop_front() {
                Some(frame) => frame,
                None => match next(cx)? {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => {
                        self.held = self.held.take().or_else(|| self.way_of_held());
                        let Some(held) = &mut self.held else {
                            return Poll::Pending;
                        };
                        let done = ready!(held.as_mut().poll(cx));
                        self.held = None;
                        self.done = done?;
                        continue;
                    }
                },
            };
            // Plugins are shown the frame with what they hold.
            self.held = None;
            self.running = Some(Box::pin(self.way_of(frame)));
        }
    }
}

/// Frames through all plugins from that one on.
async fn through(
    chain: Rc<[Rc<Stream>]>,
    from: usize,
    facts: Rc<RequestFacts>,
    direction: Direction,
    mut frames: VecDeque<Frame>,
    had_trailers: bool,
) -> Passed {
    for stream in chain.iter().skip(from) {
        let mut next = VecDeque::new();
        for frame in frames {
            let (piece, rest) = match frame {
                Frame::Data(data) => (stream.body(direction, data, false).await, None),
                Frame::Trailers(fields) => {
                    let mut head = Head::of(fields);
                    let piece = stream.trailers(direction, &mut head).await;
                    (piece, Some(Frame::Trailers(head.fields)))
                }
                Frame::End if had_trailers => (Ok(Piece::Held), Some(Frame::End)),
                Frame::End => {
                    let piece = stream.body(direction, Bytes::new(), true).await;
                    (piece, Some(Frame::End))
                }
            };
            next.extend(passed(piece, &facts)?);
            next.extend(rest);
        }
        frames = next;
    }
    Ok(frames)
}

/// What goes on of a body, or the answer that ends the request.
fn passed(piece: Result<Piece, Failed>, facts: &RequestFacts) -> Result<Option<Frame>, Box<Reply>> {
    match piece {
        Ok(Piece::Pass(data)) => Ok((!data.is_empty()).then_some(Frame::Data(data))),
        Ok(Piece::Held) => Ok(None),
        Ok(Piece::Respond(local)) => Err(Box::new(answer(local, facts.is_grpc))),
        Err(failed) => Err(Box::new(failure(failed))),
    }
}

/// The answer to a request that a plugin could not serve.
pub(crate) fn failure(failed: Failed) -> Reply {
    match failed {
        Failed::Trapped => Reply::new(Reason::PluginFailed),
        Failed::Unavailable => Reply::with_detail(
            Reason::PluginFailed,
            StatusCode::SERVICE_UNAVAILABLE,
            "a plugin is not available",
        ),
        Failed::TooLarge => Reply::new(Reason::BodyTooLarge),
    }
}

/// An answer that a plugin gives; to a gRPC client as it understands it.
pub(crate) fn answer(local: LocalResponse, is_grpc: bool) -> Reply {
    let status = StatusCode::from_u16(local.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = local.fields;
    if !is_grpc {
        return Reply {
            body: local.body,
            ..Reply::empty(Reason::PluginReply, status, headers)
        };
    }
    let code = local.grpc_status.unwrap_or(match local.status {
        400 | 500 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    });
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert("grpc-status", HeaderValue::from(code));
    if let Ok(message) = HeaderValue::from_bytes(local.body.trim_ascii()) {
        headers.insert("grpc-message", message);
    }
    Reply::empty(Reason::PluginReply, StatusCode::OK, headers)
}

/// The request's head as plugins see it; its fields move there.
pub(crate) fn request_head(request: &mut Request, scheme: &'static str) -> Head {
    let fields = std::mem::take(&mut request.headers);
    head_of(request, fields, scheme)
}

fn head_of(request: &Request, fields: HeaderMap, scheme: &'static str) -> Head {
    let copied = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let pseudo = vec![
        (":method", copied(request.method.as_str())),
        (":path", copied(request.target.as_str())),
        (":authority", copied(request.authority.as_str())),
        (":scheme", Bytes::from_static(scheme.as_bytes())),
    ];
    Head::new(pseudo, announced(fields, request.body))
}

/// Takes a head back from plugins; nothing when they made it unfit to be sent.
pub(crate) fn take_request(request: &mut Request, mut head: Head) -> Option<()> {
    let (fields, body) = framed(std::mem::take(&mut head.fields), request.body)?;
    request.headers = fields;
    request.body = body;
    if !head.is_rewritten {
        return Some(());
    }
    let method = Method::from_bytes(head.pseudo(":method")?).ok()?;
    // A CONNECT is another kind of request, what follows a GET may be no body, and whether the response
    // has one the client knows by the method it sent.
    let is_other = |known: Method| (method == known) != (request.method == known);
    let is_switch = request.wants_websocket && method != request.method;
    if method == Method::CONNECT || is_other(Method::HEAD) || is_switch {
        return None;
    }
    let target = PathAndQuery::from_maybe_shared(head.pseudo(":path")?.clone()).ok()?;
    let is_asterisk = request.target == "*" && target == "*" && method == request.method;
    request.method = method;
    if !target.path().starts_with('/') && !is_asterisk {
        return None;
    }
    request.target = target;
    request.authority = Authority::parse(head.pseudo(":authority")?.clone()).ok()?;
    Some(())
}

/// The response's head as plugins see it; its fields move there.
pub(crate) fn response_head(response: &mut Response) -> Head {
    let fields = std::mem::take(&mut response.headers);
    status_head(response, fields)
}

/// What is kept of a request's head as it is sent on. One of unusual size is copied, because the request
/// lets go of it, and of the memory that it came in, long before it ends.
fn kept_request(request: &Request, scheme: &'static str) -> Head {
    let head = head_of(request, request.headers.clone(), scheme);
    match is_large(&request.headers) {
        true => head.unshared(),
        false => head,
    }
}

/// The same of a response, of whatever size: nobody else holds what it was read into.
fn kept_response(response: &Response) -> Head {
    status_head(response, response.headers.clone()).unshared()
}

fn status_head(response: &Response, fields: HeaderMap) -> Head {
    let status = Bytes::copy_from_slice(response.status.as_str().as_bytes());
    Head::new(vec![(":status", status)], announced(fields, response.body))
}

/// Takes a head back from plugins; nothing when they made it unfit to be sent.
pub(crate) fn take_response(response: &mut Response, mut head: Head) -> Option<()> {
    let is_bodyless = response.body == BodyLength::None;
    if is_bodyless {
        // What is said about a body that is not sent (HEAD, 304) stays as it was.
        response.headers = std::mem::take(&mut head.fields);
    } else {
        let (fields, body) = framed(std::mem::take(&mut head.fields), response.body)?;
        response.headers = fields;
        response.body = body;
        response.declared = body;
    }
    if head.is_rewritten {
        let status = StatusCode::from_bytes(head.pseudo(":status")?).ok()?;
        let has_no_body = |status: StatusCode| matches!(status.as_u16(), 100..200 | 204 | 304);
        // Whether a body follows was decided by the backend's status.
        if status != response.status && (has_no_body(status) || status.as_u16() > 599) {
            return None;
        }
        if has_no_body(response.status) && !has_no_body(status) {
            // Of this one the client expects to be told where it ends.
            response.declared = BodyLength::Length(0);
            response.body = BodyLength::Length(0);
            let none = HeaderValue::from(0);
            response.headers.insert(header::CONTENT_LENGTH, none);
        }
        response.status = status;
    }
    Some(())
}

/// Plugins see the length of a body where it is known, and let it go when they change the body.
fn announced(mut fields: HeaderMap, body: BodyLength) -> HeaderMap {
    if let BodyLength::Length(length) = body {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    fields
}

/// How the body is framed after what plugins left of its length; nothing when that is no length.
fn framed(mut fields: HeaderMap, body: BodyLength) -> Option<(HeaderMap, BodyLength)> {
    if body == BodyLength::None {
        fields.remove(header::CONTENT_LENGTH);
        return Some((fields, body));
    }
    let mut said = fields.get_all(header::CONTENT_LENGTH).iter();
    let length = match (said.next(), said.next()) {
        (None, _) => None,
        (Some(only), None) => Some(decimal(only.as_bytes())?),
        (Some(_), Some(_)) => return None,
    };
    let body = match (length, body) {
        (Some(length), _) => BodyLength::Length(length),
        (None, BodyLength::Length(0)) => {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
            body
        }
        (None, BodyLength::Length(_)) => BodyLength::Chunked,
        (None, body) => body,
    };
    Some((fields, body))
}

/// What plugins can ask about a request besides its messages.
pub(crate) struct RequestFacts {
    /// The client is told in the way of gRPC.
    pub(crate) is_grpc: bool,
    client: SocketAddr,
    bind: SocketAddr,
    /// The connection's number.
    connection: u64,
    protocol: &'static str,
    started: Instant,
    started_at: SystemTime,
    sni: Option<String>,
    tls_version: Option<&'static str>,
    certificate: Option<Arc<ClientFacts>>,
    /// Bytes of the request's body, where its head says so or once it is over.
    received: Cell<Option<u64>>,
    end: Cell<Option<End>>,
    places: RefCell<Places>,
}

/// How the request ended.
#[derive(Clone, Copy)]
struct End {
    /// Bytes of the response's body.
    sent: u64,
    reason: Reason,
    grpc_status: Option<GrpcStatus>,
}

/// Where the request goes, as far as that is known.
#[derive(Default)]
pub(crate) struct Places {
    pub(crate) listener: Option<Arc<str>>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) cluster: Option<Arc<str>>,
    pub(crate) upstream: Option<SocketAddr>,
}

impl RequestFacts {
    fn new(client: SocketAddr, started: Instant, arrival: &Arrival, request: &Request) -> Self {
        let tls = arrival.tls.as_ref();
        Self {
            is_grpc: request.is_grpc(),
            client,
            bind: arrival.bind,
            connection: arrival.number(),
            protocol: match request.version {
                http::Version::HTTP_2 => "HTTP/2",
                http::Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            started,
            started_at: SystemTime::now(),
            sni: tls.and_then(|tls| tls.sni.clone()),
            tls_version: tls.map(|tls| tls.version),
            certificate: tls.and_then(|tls| tls.client.clone()),
            received: Cell::new(match request.body {
                BodyLength::None => Some(0),
                BodyLength::Length(length) => Some(length),
                _ => None,
            }),
            end: Cell::new(None),
            places: RefCell::default(),
        }
    }

    /// Notes what is known by now.
    pub(crate) fn note(&self, places: Places) {
        *self.places.borrow_mut() = places;
    }

    /// Notes how the request ended, and the bytes of its body and of the response's.
    pub(crate) fn ended(
        &self,
        reason: Reason,
        grpc_status: Option<GrpcStatus>,
        received: u64,
        sent: u64,
    ) {
        self.received.set(Some(received));
        let end = End {
            sent,
            reason,
            grpc_status,
        };
        self.end.set(Some(end));
    }
}

impl Facts for RequestFacts {
    fn fact(&self, path: &[&str]) -> Option<Fact> {
        let places = self.places.borrow();
        let text = |text: &Option<Arc<str>>| text.as_deref().map(Fact::from);
        let address = |address: SocketAddr| Some(Fact::from(&*address.to_string()));
        let port = |address: SocketAddr| Some(Fact::Number(i64::from(address.port())));
        let nanoseconds = |time: u128| Fact::Number(i64::try_from(time).unwrap_or(i64::MAX));
        let number = |number: u64| Fact::Number(i64::try_from(number).unwrap_or(i64::MAX));
        let first = |names: &[String]| names.first().map(|name| Fact::from(&**name));
        let certificate = self.certificate.as_deref();
        match path {
            ["source", "address"] => address(self.client),
            ["source", "port"] => port(self.client),
            ["destination", "address"] => address(self.bind),
            ["destination", "port"] => port(self.bind),
            ["upstream", "address"] => address(places.upstream?),
            ["upstream", "port"] => port(places.upstream?),
            ["request", "protocol"] => Some(self.protocol.into()),
            ["request", "time"] => {
                let since = self.started_at.duration_since(SystemTime::UNIX_EPOCH);
                Some(nanoseconds(since.ok()?.as_nanos()))
            }
            ["request", "size"] => self.received.get().map(number),
            ["response", "size"] => self.end.get().map(|end| number(end.sent)),
            ["response", "grpc_status"] => {
                let status = self.end.get()?.grpc_status?;
                Some(Fact::Number(status.code().into()))
            }
            ["response", "code_details"] => self.end.get().map(|end| end.reason.as_str().into()),
            ["response", "flags"] => self.end.get().map(|end| number(flags(end.reason))),
            ["request", "duration"] => Some(nanoseconds(self.started.elapsed().as_nanos())),
            ["connection", "id"] => Some(number(self.connection)),
            ["connection", "mtls"] => Some(Fact::Flag(certificate.is_some())),
            ["connection", "requested_server_name"] => self.sni.as_deref().map(Fact::from),
            ["connection", "tls_version"] => self.tls_version.map(Fact::from),
            ["connection", "client_certificate"] => Some(Fact::from(&*certificate?.to_field())),
            ["connection", "subject_peer_certificate"] => Some(Fact::from(&*certificate?.subject)),
            ["connection", "dns_san_peer_certificate"] => first(&certificate?.dns_names),
            ["connection", "uri_san_peer_certificate"] => first(&certificate?.uris),
            ["route_name"] | ["xds", "route_name"] => text(&places.route),
            ["cluster_name"] | ["xds", "cluster_name"] => text(&places.cluster),
            ["listener_name"] | ["xds", "listener_name"] => text(&places.listener),
            ["listener_direction"] => Some(Fact::Number(1)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use crate::arrival::{Texts, TlsFacts};

    use super::*;

    fn request(method: &str, target: &str, fields: &str) -> Request {
        let text = format!("{method} {target} HTTP/1.1\r\nhost: x\r\n{fields}\r\n");
        let mut buf = bytes::BytesMut::from(text.as_bytes());
        let limits = crate::h1::HeadLimits::REQUEST;
        let head = crate::h1::request_head(&mut buf, &mut 0, &limits).unwrap();
        Request::from_h1(head.unwrap()).unwrap()
    }

    fn response(status: u16, body: BodyLength) -> Response {
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body,
            declared: body,
        }
    }

    #[test]
    fn what_plugins_keep_of_a_head_does_not_keep_what_it_was_read_into() {
        let large = "v".repeat(crate::message::USUAL_HEAD_BYTES + 1);
        for (fill, is_copied) in [("v", false), (&*large, true)] {
            let text = format!("GET /p HTTP/1.1\r\nhost: a.test\r\nx-fill: {fill}\r\n\r\n");
            let mut buf = bytes::BytesMut::from(text.as_bytes());
            let head = crate::h1::request_head(&mut buf, &mut 0, &crate::h1::HeadLimits::REQUEST);
            let request = Request::from_h1(head.unwrap().unwrap()).unwrap();
            let kept = kept_request(&request, "http");
            assert_eq!(kept.fields["x-fill"], fill);
            assert_eq!(kept.pseudo(":authority").unwrap(), "a.test");
            drop(request);
            // Memory is given again once nobody else has a part of it.
            assert_eq!(buf.try_reclaim(text.len()), is_copied);
        }
        let buffer = Bytes::from(b"value".to_vec());
        let mut response = response(200, BodyLength::Length(3));
        let value = HeaderValue::from_maybe_shared(buffer.clone()).unwrap();
        response.headers.insert("x-a", value);
        let kept = kept_response(&response);
        drop(response);
        assert!(buffer.is_unique());
        assert_eq!(kept.fields["x-a"], "value");
    }

    #[test]
    fn a_changed_status_never_leaves_the_end_of_a_response_open() {
        use BodyLength::{Length, None as Nothing};
        for (from, body, to, expected) in [
            (200, Length(3), 404, Some(Length(3))),
            (200, Length(3), 204, None),
            (200, Length(3), 304, None),
            (200, Length(3), 101, None),
            (204, Nothing, 200, Some(Length(0))),
            (304, Nothing, 503, Some(Length(0))),
            // The answer to a HEAD.
            (200, Nothing, 404, Some(Nothing)),
        ] {
            let mut response = response(from, body);
            let mut head = response_head(&mut response);
            head.pseudo[0].1 = Bytes::from(to.to_string());
            head.is_rewritten = true;
            let taken = take_response(&mut response, head);
            let framed = taken.map(|()| (response.status.as_u16(), response.body));
            assert_eq!(framed, expected.map(|body| (to, body)), "{from} to {to}");
        }
    }

    #[test]
    fn a_changed_method_leaves_the_client_its_kind_of_response() {
        for (from, target, to, is_taken) in [
            ("GET", "/", "POST", true),
            ("POST", "/", "GET", true),
            ("GET", "/", "HEAD", false),
            ("HEAD", "/", "GET", false),
            ("GET", "/", "CONNECT", false),
            ("OPTIONS", "*", "OPTIONS", true),
            ("OPTIONS", "*", "GET", false),
        ] {
            let mut request = request(from, target, "");
            let mut head = request_head(&mut request, "http");
            head.pseudo[0].1 = Bytes::from(to.to_owned());
            head.is_rewritten = true;
            let taken = take_request(&mut request, head);
            assert_eq!(taken.is_some(), is_taken, "{from} {target} to {to}");
        }
    }

    #[test]
    fn facts_are_told_as_soon_as_they_are_known() {
        let names = |name: &str| vec![name.to_owned(), "other".to_owned()];
        let arrival = Arrival {
            client: "10.0.0.9:4000".parse().unwrap(),
            bind: "10.0.0.1:443".parse().unwrap(),
            port: 443.try_into().unwrap(),
            tls: Some(TlsFacts {
                sni: None,
                listener: "infra/gw/https".into(),
                is_http2: false,
                version: "TLSv1.3",
                client: Some(Arc::new(ClientFacts {
                    subject: "CN=worker".to_owned(),
                    uris: names("spiffe://a/b"),
                    dns_names: names("worker.test"),
                    fingerprint: "00".to_owned(),
                })),
                admission: None,
            }),
            drain: CancellationToken::new(),
            texts: Texts::default(),
        };
        let request = request("POST", "/", "content-length: 7\r\n");
        let facts = RequestFacts::new(arrival.client, Instant::now(), &arrival, &request);
        let check = |of: &str, name: &str, expected: Option<Fact>| {
            assert_eq!(facts.fact(&[of, name]), expected, "{of}.{name}");
        };
        check("connection", "mtls", Some(Fact::Flag(true)));
        for (name, expected) in [
            ("subject_peer_certificate", "CN=worker"),
            ("uri_san_peer_certificate", "spiffe://a/b"),
            ("dns_san_peer_certificate", "worker.test"),
        ] {
            check("connection", name, Some(expected.into()));
        }
        check("request", "size", Some(Fact::Number(7)));
        check("response", "size", None);
        check("response", "code_details", None);
        check("response", "flags", None);
        check("response", "grpc_status", None);
        facts.ended(Reason::ClientAborted, Some(GrpcStatus::read(b"14")), 3, 9);
        check("response", "grpc_status", Some(Fact::Number(14)));
        check("request", "size", Some(Fact::Number(3)));
        check("response", "size", Some(Fact::Number(9)));
        check("response", "code_details", Some("client_aborted".into()));
        check("response", "flags", Some(Fact::Number(0x4000)));
        let id = |arrival: &Arrival| {
            let client = arrival.client;
            let facts = RequestFacts::new(client, Instant::now(), arrival, &request);
            facts.fact(&["connection", "id"]).unwrap()
        };
        let other = Arrival {
            texts: Texts::default(),
            ..arrival.clone()
        };
        assert_eq!(id(&arrival), facts.fact(&["connection", "id"]).unwrap());
        assert_ne!(id(&arrival), id(&other));
    }
}
