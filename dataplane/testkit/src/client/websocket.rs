//! WebSocket over a stream that stands.
//!
//! The returned socket is tokio-tungstenite's: tests send and read messages with `futures_util`'s
//! `SinkExt` and `StreamExt`.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;

use super::ClientError;
use crate::wait::DEADLINE;

pub use tokio_tungstenite::tungstenite::Message;

/// Connects in plain text and upgrades.
pub async fn connect(
    address: SocketAddr,
    host: &str,
    path: &str,
) -> Result<(WebSocketStream<TcpStream>, Response), ClientError> {
    let stream = super::bounded(TcpStream::connect(address)).await?;
    over(stream, host, path).await
}

/// Upgrades a stream that stands. A refusal is [`ClientError::Malformed`] with the status in it.
pub async fn over<S>(
    stream: S,
    host: &str,
    path: &str,
) -> Result<(WebSocketStream<S>, Response), ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("ws://{host}{path}")
        .into_client_request()
        .map_err(|error| ClientError::Malformed(error.to_string()))?;
    let upgrade = tokio_tungstenite::client_async(request, stream);
    match tokio::time::timeout(DEADLINE, upgrade).await {
        Ok(Ok(upgraded)) => Ok(upgraded),
        Ok(Err(Error::Io(error))) => Err(error.into()),
        Ok(Err(Error::Http(response))) => Err(ClientError::Malformed(format!(
            "status {}",
            response.status()
        ))),
        Ok(Err(error)) => Err(ClientError::Malformed(error.to_string())),
        Err(_) => Err(ClientError::Deadline),
    }
}
