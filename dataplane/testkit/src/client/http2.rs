//! HTTP/2 without negotiation: prior knowledge in plain text, or over a TLS stream that agreed on it.
//!
//! [`Http2Client::send`] is for whole exchanges, [`Http2Client::open`] for those where both sides
//! speak in turn. The connection is driven by a task that ends with the client.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{ClientError, Response, bounded};
use crate::h2_stream;

/// One HTTP/2 connection.
pub struct Http2Client {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Http2Client {
    /// Connects in plain text, with prior knowledge.
    pub async fn connect(address: SocketAddr) -> Result<Self, ClientError> {
        let stream = bounded(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Self::over(stream).await
    }

    /// Speaks over a stream that stands.
    pub async fn over<S>(stream: S) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = bounded(h2::client::handshake(stream)).await?;
        Ok(Self {
            requests,
            connection: tokio::spawn(connection),
        })
    }

    /// Sends GET and reads the response.
    pub async fn get(&self, authority: &str, path: &str) -> Result<Response, ClientError> {
        let request = Request::get(format!("http://{authority}{path}"));
        let request = request
            .body(Bytes::new())
            .map_err(|error| ClientError::Malformed(error.to_string()))?;
        self.send(request).await
    }

    /// Sends a request and reads its response. The URI must be absolute: it gives scheme,
    /// authority and path.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response, ClientError> {
        let (head, body) = request.into_parts();
        let exchange = self.open(Request::from_parts(head, ())).await?;
        let (mut request, receiving) = exchange.split();
        // Both ways at once: the peer may answer before the body is through, and may have to, for
        // its window to open.
        let sending = async {
            if h2_stream::send(&mut request, body).await.is_ok() {
                // A stream that was refused meanwhile needs no end.
                let _ = request.send_data(Bytes::new(), true);
            }
        };
        tokio::pin!(sending, receiving);
        tokio::select! {
            response = &mut receiving => return response,
            () = &mut sending => {}
        }
        receiving.await
    }

    /// Starts an exchange and leaves the rest to the caller.
    pub async fn open(&self, request: Request<()>) -> Result<Http2Exchange, ClientError> {
        let mut requests = bounded(self.requests.clone().ready()).await?;
        let (head, body) = requests.send_request(request, false)?;
        Ok(Http2Exchange {
            head: Some(head),
            request: body,
            response: None,
        })
    }

    /// Waits for the end of the connection: Ok after a GOAWAY without error or a plain close.
    pub async fn closed(&mut self) -> Result<(), ClientError> {
        let connection = &mut self.connection;
        bounded(async move {
            connection
                .await
                .unwrap_or_else(|_| Err(h2::Error::from(Reason::INTERNAL_ERROR)))
        })
        .await
    }

    /// True while new requests may be sent.
    pub async fn is_open(&self) -> bool {
        !self.connection.is_finished() && bounded(self.requests.clone().ready()).await.is_ok()
    }
}

impl Drop for Http2Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// One request and its response, in as many steps as the test likes.
pub struct Http2Exchange {
    head: Option<ResponseFuture>,
    request: SendStream<Bytes>,
    response: Option<RecvStream>,
}

impl Http2Exchange {
    /// Sends a part of the request body.
    pub async fn send(&mut self, data: impl Into<Bytes>) -> Result<(), ClientError> {
        bounded(h2_stream::send(&mut self.request, data.into())).await
    }

    /// Ends the request body.
    pub fn finish(&mut self) -> Result<(), ClientError> {
        Ok(self.request.send_data(Bytes::new(), true)?)
    }

    /// Ends the request body with trailers.
    pub fn finish_with(&mut self, trailers: HeaderMap) -> Result<(), ClientError> {
        Ok(self.request.send_trailers(trailers)?)
    }

    /// Gives the exchange up.
    pub fn reset(&mut self, reason: Reason) {
        self.request.send_reset(reason);
    }

    /// The response's head; its body is still to be read.
    pub async fn head(&mut self) -> Result<Response, ClientError> {
        let head = self.head.take();
        let head = head.ok_or_else(head_was_read)?;
        let (head, body) = bounded(head).await?.into_parts();
        self.response = Some(body);
        Ok(Response {
            status: head.status,
            headers: head.headers,
            ..Response::default()
        })
    }

    /// The next piece of the response body, once the head was read; nothing at its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        match &mut self.response {
            Some(body) => bounded(h2_stream::receive(body)).await,
            None => Err(ClientError::Malformed("body before head".to_owned())),
        }
    }

    /// Trailers, once the body was read.
    pub async fn trailers(&mut self) -> Result<HeaderMap, ClientError> {
        match &mut self.response {
            Some(body) => Ok(bounded(body.trailers()).await?.unwrap_or_default()),
            None => Err(ClientError::Malformed("trailers before head".to_owned())),
        }
    }

    /// The whole response, of which nothing was read yet.
    pub async fn response(self) -> Result<Response, ClientError> {
        // The sending half lives as long as the response is read: dropping it resets the stream.
        let (_request, receiving) = self.split();
        receiving.await
    }

    fn split(
        self,
    ) -> (
        SendStream<Bytes>,
        impl Future<Output = Result<Response, ClientError>>,
    ) {
        let receiving = async {
            let head = self.head.ok_or_else(head_was_read)?;
            let (head, mut body) = bounded(head).await?.into_parts();
            let mut whole = BytesMut::new();
            while let Some(data) = bounded(h2_stream::receive(&mut body)).await? {
                whole.extend_from_slice(&data);
            }
            Ok(Response {
                status: head.status,
                headers: head.headers,
                body: whole.freeze(),
                trailers: bounded(body.trailers()).await?.unwrap_or_default(),
                interim: Vec::new(),
            })
        };
        (self.request, receiving)
    }
}

fn head_was_read() -> ClientError {
    ClientError::Malformed("head read twice".to_owned())
}
