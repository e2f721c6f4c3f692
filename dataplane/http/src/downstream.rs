//! The client's side of one request: the body that comes in, the response that goes out.
//!
//! Both exist for HTTP/1.1 and HTTP/2 behind one face, so that phases and the exchange with the
//! backend never ask which it is. Writing is buffered: nothing leaves before [`Responder::flush`]
//! or the end, so that a small response is one system call.

use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use tokio::time::timeout;

use crate::h1::{self, BodyDecoder, BodyEncoder, BodyLength, Frame};
use crate::io::Duplex;
use crate::message::Response;
use crate::outbox::Outbox;
use crate::reply::Reply;
use crate::settings::Settings;

mod request_body;

pub(crate) use request_body::RequestBody;

/// Bytes asked of a socket at once.
pub(crate) const READ_BYTES: usize = 16 * 1024;
/// Larger pieces may wait in the buffer that they were read into.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// What went wrong on the client's side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The connection or stream ended early, or was reset.
    #[error("the client went away")]
    Gone,
    /// The body breaks its framing.
    #[error("the request body is malformed: {0}")]
    Malformed(&'static str),
    /// The body is larger than the limit.
    #[error("the request body is too large")]
    TooLarge,
    /// A plugin answers instead, or could not go on.
    #[error("a plugin ended the request")]
    Answered(Box<Reply>),
    /// The response's body is longer or shorter than its head says.
    #[error("the response body does not have the length its head says")]
    Unsendable,
}

impl From<io::Error> for ClientError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// A plugin that looks at the body has something else to say.
impl From<Box<Reply>> for ClientError {
    fn from(reply: Box<Reply>) -> Self {
        Self::Answered(reply)
    }
}

/// A body that does not fit its framing can only be cut: the origin lied about its length.
impl From<h1::EncodeError> for ClientError {
    fn from(_: h1::EncodeError) -> Self {
        Self::Unsendable
    }
}

impl From<h2::Error> for ClientError {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

/// How much to ask for while a body is read: little of a small one, of a large one what one direction
/// may hold.
pub(crate) fn body_room(decoder: &BodyDecoder, buffer_bytes: usize) -> usize {
    let left = decoder.bytes_left();
    let left = left.map_or(buffer_bytes, |left| {
        usize::try_from(left).unwrap_or(buffer_bytes)
    });
    left.max(READ_BYTES).min(buffer_bytes)
}

/// The response to one request.
pub(crate) struct Responder<'a> {
    sink: Sink<'a>,
    progress: Progress,
    bytes: u64,
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Nothing,
    Head,
    /// All was handed over and not all written.
    Ending,
    Complete,
}

enum Sink<'a> {
    Http1(Http1Sink<'a>),
    Http2 {
        respond: SendResponse<Bytes>,
        body: Option<h2::SendStream<Bytes>>,
        /// Handed over, and waits for the client's window.
        data: Bytes,
    },
}

struct Http1Sink<'a> {
    io: &'a Duplex,
    out: Outbox,
    encoder: BodyEncoder,
    version: Version,
    is_head: bool,
    takes_trailers: bool,
    keep_alive: bool,
    settings: &'a Settings,
    /// Which request of the connection this is.
    number: u32,
    /// The end of the body is the end of the connection, so a cut must not look like an end.
    ends_by_close: bool,
}

impl<'a> Responder<'a> {
    pub(crate) fn http1(io: &'a Duplex, head: &h1::RequestHead, settings: &'a Settings) -> Self {
        let mut responder = Self::http1_for_refusal(io, settings);
        if let Sink::Http1(sink) = &mut responder.sink {
            sink.version = head.version;
            sink.is_head = head.method == http::Method::HEAD;
            sink.keep_alive = head.keep_alive;
        }
        responder
    }

    /// Notes whether the client wants trailers.
    pub(crate) fn takes_trailers(&mut self, takes_trailers: bool) {
        if let Sink::Http1(sink) = &mut self.sink {
            sink.takes_trailers = takes_trailers;
        }
    }

    /// For a request whose head could not be read.
    pub(crate) fn http1_for_refusal(io: &'a Duplex, settings: &'a Settings) -> Self {
        let sink = Http1Sink {
            io,
            out: Outbox::default(),
            encoder: BodyEncoder::new(BodyLength::None),
            version: Version::HTTP_11,
            is_head: false,
            takes_trailers: false,
            keep_alive: false,
            settings,
            number: 1,
            ends_by_close: false,
        };
        Self {
            sink: Sink::Http1(sink),
            progress: Progress::Nothing,
            bytes: 0,
        }
    }

    pub(crate) fn http2(respond: SendResponse<Bytes>) -> Self {
        let sink = Sink::Http2 {
            respond,
            body: None,
            data: Bytes::new(),
        };
        Self {
            sink,
            progress: Progress::Nothing,
            bytes: 0,
        }
    }

    /// True when a final head was handed over, so that no other answer can be given.
    pub(crate) fn has_head(&self) -> bool {
        self.progress != Progress::Nothing
    }

    /// True when the whole response was handed over.
    pub(crate) fn is_complete(&self) -> bool {
        self.progress == Progress::Complete
    }

    /// Body bytes handed over so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts bytes that a switched connection carried.
    pub(crate) fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Says that the connection ends with this response; before the head.
    pub(crate) fn close_after(&mut self) {
        if let Sink::Http1(sink) = &mut self.sink {
            sink.keep_alive = false;
        }
    }

    /// True when the connection may carry another request after this response.
    pub(crate) fn keeps_alive(&self) -> bool {
        match &self.sink {
            Sink::Http1(sink) => sink.keep_alive && self.is_complete(),
            Sink::Http2 { .. } => true,
        }
    }

    /// Notes that this is the connection's request of that number.
    pub(crate) fn serves(&mut self, number: u32) {
        if let Sink::Http1(sink) = &mut self.sink {
            sink.number = number;
        }
    }

    /// Says that the connection ends with its request of that number; before the head.
    pub(crate) fn close_after_requests(&mut self, max: u32) {
        if let Sink::Http1(sink) = &mut self.sink
            && sink.number >= max
        {
            sink.keep_alive = false;
        }
    }

    /// The version that the response is written in.
    pub(crate) fn version(&self) -> Version {
        match &self.sink {
            Sink::Http1(sink) => sink.version,
            Sink::Http2 { .. } => Version::HTTP_2,
        }
    }

    /// The client's connection, where it serves this request alone.
    pub(crate) fn connection(&self) -> Option<&'a Duplex> {
        match &self.sink {
            Sink::Http1(sink) => Some(sink.io),
            Sink::Http2 { .. } => None,
        }
    }

    /// Passes an interim response (1xx) on; RFC 9110 15.2 forbids them to HTTP/1.0 clients. A client
    /// that does not take it in time is gone.
    pub(crate) async fn interim(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(), ClientError> {
        match &mut self.sink {
            Sink::Http1(sink) if sink.version == Version::HTTP_11 => {
                h1::encode_response_head(
                    &mut sink.out.gathered,
                    Version::HTTP_11,
                    status,
                    headers,
                    BodyLength::None,
                    h1::Connection::KeepAlive,
                );
                if let Poll::Ready(flushed) = poll_fn(|cx| Poll::Ready(sink.poll_flush(cx))).await {
                    return flushed;
                }
                // Boxed, because almost every client has room for it.
                let limit = sink.settings.write_idle;
                let flushed = Box::pin(timeout(limit, poll_fn(|cx| sink.poll_flush(cx))));
                return flushed.await.unwrap_or(Err(ClientError::Gone));
            }
            Sink::Http1(_) => {}
            Sink::Http2 { respond, .. } => {
                let mut response = http::Response::new(());
                *response.status_mut() = status;
                *response.headers_mut() = headers.clone();
                respond.send_informational(response)?;
            }
        }
        Ok(())
    }

    /// Hands over the head of the final response.
    pub(crate) fn head(&mut self, response: &mut Response) -> Result<(), ClientError> {
        debug_assert_eq!(self.progress, Progress::Nothing);
        match &mut self.sink {
            Sink::Http1(sink) => sink.head(response),
            Sink::Http2 { respond, body, .. } => {
                let ends = response.body.is_empty();
                let mut head = http::Response::new(());
                *head.status_mut() = response.status;
                *head.headers_mut() = std::mem::take(&mut response.headers);
                *body = Some(respond.send_response(head, ends)?);
                self.progress = if ends {
                    Progress::Complete
                } else {
                    Progress::Head
                };
                return Ok(());
            }
        }
        self.progress = Progress::Head;
        Ok(())
    }

    /// Hands over one frame of the body and waits until there is room for another; behind
    /// [`Frame::End`] everything is written out.
    pub(crate) fn frame(&mut self, frame: Frame) -> impl Future<Output = Result<(), ClientError>> {
        // Not an async function: its future would hold the frame twice.
        let mut put = Some(self.put(frame));
        poll_fn(move |cx| match put.take() {
            Some(Err(error)) => Poll::Ready(Err(error)),
            _ => self.poll_taken(cx),
        })
    }

    /// Hands over one frame of the body. [`Self::poll_taken`] must be ready before the next.
    pub(crate) fn put(&mut self, frame: Frame) -> Result<(), ClientError> {
        let ends = matches!(frame, Frame::End);
        if let Frame::Data(data) = &frame {
            self.bytes += data.len() as u64;
        }
        match &mut self.sink {
            Sink::Http1(sink) => sink.put(frame)?,
            Sink::Http2 { .. } if self.progress == Progress::Complete => {}
            Sink::Http2 {
                body: Some(stream),
                data: waiting,
                ..
            } => match frame {
                Frame::Data(data) => *waiting = unshared(data),
                Frame::End => stream.send_data(Bytes::new(), true)?,
                Frame::Trailers(trailers) => {
                    stream.send_trailers(trailers)?;
                    self.progress = Progress::Complete;
                }
            },
            Sink::Http2 { body: None, .. } => return Err(ClientError::Gone),
        }
        if ends {
            self.progress = Progress::Ending;
        }
        Ok(())
    }

    /// Ready when there is room for another frame, or when the whole response was written.
    pub(crate) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match &mut self.sink {
            Sink::Http1(sink) => ready!(sink.out.poll_taken(sink.io, cx))?,
            Sink::Http2 { data, .. } if data.is_empty() => {}
            Sink::Http2 {
                body: Some(stream),
                data,
                ..
            } => ready!(poll_write_http2(stream, data, cx))?,
            Sink::Http2 { body: None, .. } => return Poll::Ready(Err(ClientError::Gone)),
        }
        if self.progress == Progress::Ending {
            self.progress = Progress::Complete;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes out what has been gathered.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match &mut self.sink {
            Sink::Http1(sink) => sink.poll_flush(cx),
            Sink::Http2 { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Makes the client see that the response is cut: never a clean end.
    pub(crate) fn abort(&mut self) {
        match &mut self.sink {
            // The caller closes the connection; without the last chunk or byte that is a cut.
            Sink::Http1(sink) => {
                sink.keep_alive = false;
                if sink.ends_by_close {
                    sink.io.reset_when_dropped();
                }
            }
            Sink::Http2 {
                body: Some(stream), ..
            } => {
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
            }
            Sink::Http2 {
                respond,
                body: None,
                ..
            } => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        }
    }

    /// Ready when the client gave the request up, as far as that can be told without reading.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sink {
            Sink::Http1(_) => Poll::Pending,
            Sink::Http2 {
                body: Some(stream), ..
            } => stream.poll_reset(cx).map(|_| ()),
            Sink::Http2 {
                respond,
                body: None,
                ..
            } => respond.poll_reset(cx).map(|_| ()),
        }
    }
}

impl Http1Sink<'_> {
    fn head(&mut self, response: &Response) {
        let framing = match response.body {
            // With chunks a body that is cut can be told from one that is whole.
            BodyLength::UntilClose if self.version == Version::HTTP_11 => BodyLength::Chunked,
            // Nothing but trailers can follow: chunks are for who asked for those.
            BodyLength::Chunked
                if response.declared == BodyLength::Length(0) && !self.takes_trailers =>
            {
                BodyLength::Length(0)
            }
            body => body.for_version(self.version),
        };
        let is_bodyless = self.is_head || matches!(response.status.as_u16(), 100..200 | 204 | 304);
        self.ends_by_close = framing == BodyLength::UntilClose && !is_bodyless;
        if framing == BodyLength::UntilClose {
            self.keep_alive = false;
        }
        let connection = match self.keep_alive {
            _ if response.status == StatusCode::SWITCHING_PROTOCOLS => h1::Connection::Upgrade,
            true => h1::Connection::KeepAlive,
            false => h1::Connection::Close,
        };
        h1::encode_response_head(
            &mut self.out.gathered,
            self.version,
            response.status,
            &response.headers,
            match response.status {
                StatusCode::NOT_MODIFIED => response.declared,
                _ if self.is_head => response.declared,
                _ => framing,
            },
            connection,
        );
        self.encoder = BodyEncoder::new(if is_bodyless {
            BodyLength::None
        } else {
            framing
        });
    }

    fn put(&mut self, frame: Frame) -> Result<(), ClientError> {
        if self.takes_trailers || !matches!(frame, Frame::Trailers(_)) {
            self.out.put(&mut self.encoder, frame)?;
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(ready!(self.out.poll_flush(self.io, cx))?))
    }
}

/// What ends a body in HTTP/2, without the fields that no trailer may be.
pub(crate) fn end_of_http2(trailers: Option<HeaderMap>) -> Frame {
    let Some(mut trailers) = trailers else {
        return Frame::End;
    };
    h1::strip_trailers(&mut trailers);
    match trailers.is_empty() {
        true => Frame::End,
        false => Frame::Trailers(trailers),
    }
}

/// A piece that may wait for long, and must not keep the whole buffer that it was read into.
pub(crate) fn unshared(data: Bytes) -> Bytes {
    if data.len() < COPY_BYTES_MAX {
        Bytes::copy_from_slice(&data)
    } else {
        data
    }
}

/// Sends what `data` holds as the peer's window allows; ready when all was sent.
pub(crate) fn poll_write_http2(
    stream: &mut h2::SendStream<Bytes>,
    data: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match ready!(stream.poll_capacity(cx)) {
            Some(room) => room?,
            None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
        };
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, false)?;
    }
    Poll::Ready(Ok(()))
}

/// Header fields every answer of ours carries besides its own.
pub(crate) fn stamp(headers: &mut HeaderMap, date: &HeaderValue) {
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use crate::io::Io;

    use super::*;

    #[tokio::test]
    async fn an_interim_response_waits_for_a_client_no_longer_than_any_write() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (_client, accepted) = tokio::join!(connecting, listener.accept());
        let (tcp, _) = accepted.unwrap();
        // It reads nothing: at some point neither kernel takes any more.
        let pause = Duration::from_millis(300);
        while timeout(pause, tcp.writable()).await.is_ok() {
            while tcp.try_write(&[0; 64 * 1024]).is_ok() {}
        }
        let settings = Settings {
            write_idle: Duration::from_millis(50),
            ..Settings::default()
        };
        let io = Duplex::new(Io::Plain(tcp));
        let mut responder = Responder::http1_for_refusal(&io, &settings);
        let fields = HeaderMap::new();
        let interim = responder.interim(StatusCode::CONTINUE, &fields);
        let told = timeout(Duration::from_secs(10), interim).await;
        assert!(matches!(told, Ok(Err(ClientError::Gone))), "{told:?}");
    }
}
