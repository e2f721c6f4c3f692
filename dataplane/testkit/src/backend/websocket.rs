//! The WebSocket backend: messages come back as they were sent.
//!
//! The upgrade answer carries `x-backend`. The text `close` makes it close; a close of the client
//! is answered.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::answer::value;
use super::{Io, Seen};

/// Serves one connection to its end.
pub(super) async fn serve(io: Io, seen: Arc<Seen>) {
    #[expect(
        clippy::result_large_err,
        reason = "the signature is that of tungstenite's callback"
    )]
    let upgrade = |request: &Request, mut response: Response| {
        seen.request(request.method().as_str(), &request.uri().to_string());
        response
            .headers_mut()
            .insert("x-backend", value(&seen.name));
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(io, upgrade).await else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        let answered = match message {
            Message::Text(text) if text.as_str() == "close" => socket.close(None).await,
            Message::Text(_) | Message::Binary(_) => socket.send(message).await,
            // Pings and closes are answered by the library.
            _ => Ok(()),
        };
        if answered.is_err() {
            return;
        }
    }
}
