//! HTTP/1.1, and raw bytes: what is sent is what the test wrote, what came is shown as it came.
//!
//! Requests can be built or given byte by byte, so hostile ones are possible. Responses are read
//! with Content-Length, chunked, or to the end of the connection.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ClientError, Response, bounded, text};

/// Longest head or body that is read.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One connection that speaks HTTP/1.1, or whatever bytes the test sends.
pub struct Http1Client<S = TcpStream> {
    stream: S,
    /// Bytes that came and were not asked for yet.
    buffer: BytesMut,
}

/// Asks once over a new connection and closes it.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Response, ClientError> {
    Http1Client::connect(address).await?.get(host, path).await
}

impl Http1Client<TcpStream> {
    /// Connects in plain text.
    pub async fn connect(address: SocketAddr) -> Result<Self, ClientError> {
        let stream = bounded(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1Client<S> {
    /// Speaks over a stream that stands.
    pub fn over(stream: S) -> Self {
        let buffer = BytesMut::new();
        Self { stream, buffer }
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream below, for instance after an upgrade, and bytes already read from it.
    pub fn into_stream(self) -> (S, Bytes) {
        (self.stream, self.buffer.freeze())
    }

    /// Sends these bytes and nothing else. What comes meanwhile is kept, so that a peer that
    /// answers while it reads does not have to wait.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let Self { stream, buffer } = self;
        bounded(write_all(stream, buffer, bytes)).await
    }

    /// Closes the sending half.
    pub async fn finish(&mut self) -> Result<(), ClientError> {
        bounded(self.stream.shutdown()).await
    }

    /// Sends GET and reads the response; the connection stays open.
    pub async fn get(&mut self, host: &str, path: &str) -> Result<Response, ClientError> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.send_bytes(request.as_bytes()).await?;
        self.read_response(&Method::GET).await
    }

    /// Sends a request and reads its response. Content-Length is added unless the request says how
    /// its body is framed; the target is the URI as it stands.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Response, ClientError> {
        let method = request.method().clone();
        let mut head = format!("{method} {} HTTP/1.1\r\n", request.uri()).into_bytes();
        for (name, value) in request.headers() {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        let framed = ["content-length", "transfer-encoding"];
        let body = request.body();
        if !body.is_empty()
            && !framed
                .iter()
                .any(|name| request.headers().contains_key(*name))
        {
            head.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(body);
        // A peer may answer and close before it has read everything; the answer counts.
        let sent = self.send_bytes(&head).await;
        match (self.read_response(&method).await, sent) {
            (Err(_), Err(error)) => Err(error),
            (result, _) => result,
        }
    }

    /// Reads a whole response to a request with `method`, and interim ones before it.
    pub async fn read_response(&mut self, method: &Method) -> Result<Response, ClientError> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.read_head().await?;
            let status = response.status;
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                interim.push(status);
                continue;
            }
            self.read_body(method, &mut response).await?;
            response.interim = interim;
            return Ok(response);
        }
    }

    /// Reads a response's head, interim or final, and leaves its body to [`Self::read_some`].
    pub async fn read_head(&mut self) -> Result<Response, ClientError> {
        let status_line = self.read_line().await?;
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| ClientError::Malformed(format!("status line {status_line:?}")))?;
        Ok(Response {
            status,
            headers: self.read_fields().await?,
            ..Response::default()
        })
    }

    /// The next bytes, as they come; empty at the end of the connection.
    pub async fn read_some(&mut self) -> Result<Bytes, ClientError> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(self.buffer.split().freeze())
    }

    /// Everything up to the end of the connection.
    pub async fn read_to_end(&mut self) -> Result<Bytes, ClientError> {
        while self.fill().await? {}
        Ok(self.buffer.split().freeze())
    }

    /// True when the peer closes without sending anything more.
    pub async fn is_closed(&mut self) -> Result<bool, ClientError> {
        match self.read_some().await {
            Ok(bytes) => Ok(bytes.is_empty()),
            Err(ClientError::Io(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn read_body(
        &mut self,
        method: &Method,
        response: &mut Response,
    ) -> Result<(), ClientError> {
        let status = response.status;
        let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        if method == Method::HEAD || status.is_informational() || bodiless.contains(&status) {
            return Ok(());
        }
        if text(&response.headers, "transfer-encoding").eq_ignore_ascii_case("chunked") {
            response.body = self.read_chunks().await?;
            response.trailers = self.read_fields().await?;
        } else if let Some(length) = response.headers.get("content-length") {
            let length = length.to_str().ok().and_then(|length| length.parse().ok());
            let length =
                length.ok_or_else(|| ClientError::Malformed("content-length".to_owned()))?;
            response.body = self.read_exact(length).await?;
        } else {
            response.body = self.read_to_end().await?;
        }
        Ok(())
    }

    async fn read_chunks(&mut self) -> Result<Bytes, ClientError> {
        let mut body = BytesMut::new();
        loop {
            let line = self.read_line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| ClientError::Malformed(format!("chunk size {line:?}")))?;
            if size == 0 {
                return Ok(body.freeze());
            }
            match self.read_exact(size).await {
                Ok(chunk) => body.extend_from_slice(&chunk),
                Err(ClientError::Closed(part)) => {
                    body.extend_from_slice(&part);
                    return Err(ClientError::Closed(body.freeze()));
                }
                Err(error) => return Err(error),
            }
            if !self.read_line().await?.is_empty() {
                return Err(ClientError::Malformed("chunk without end".to_owned()));
            }
        }
    }

    async fn read_fields(&mut self) -> Result<HeaderMap, ClientError> {
        let mut fields = HeaderMap::new();
        loop {
            let line = self.read_line().await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let field = line.split_once(':').and_then(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                Some((name, HeaderValue::from_str(value.trim()).ok()?))
            });
            let Some((name, value)) = field else {
                return Err(ClientError::Malformed(format!("field {line:?}")));
            };
            fields.append(name, value);
        }
    }

    async fn read_line(&mut self) -> Result<String, ClientError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end);
                self.buffer.advance(2);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.fill().await? {
                return Err(ClientError::Closed(self.buffer.split().freeze()));
            }
        }
    }

    async fn read_exact(&mut self, length: usize) -> Result<Bytes, ClientError> {
        while self.buffer.len() < length {
            if !self.fill().await? {
                return Err(ClientError::Closed(self.buffer.split().freeze()));
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// False at the end of the connection.
    async fn fill(&mut self) -> Result<bool, ClientError> {
        if self.buffer.len() > MESSAGE_BYTES_MAX {
            return Err(ClientError::Malformed("more than is believable".to_owned()));
        }
        Ok(bounded(self.stream.read_buf(&mut self.buffer)).await? > 0)
    }
}

async fn write_all<S>(
    stream: &mut S,
    received: &mut BytesMut,
    mut bytes: &[u8],
) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut is_reading = true;
    while !bytes.is_empty() {
        tokio::select! {
            written = writer.write(bytes) => bytes = &bytes[written?..],
            read = reader.read_buf(received), if is_reading => {
                // An end or an error of the other half will be met again when it is read.
                is_reading = read.is_ok_and(|length| length > 0) && received.len() < MESSAGE_BYTES_MAX;
            }
        }
    }
    writer.flush().await
}
