//! The response side of one stream: what is put in goes out, and the sender learns when it is out.
//!
//! A channel alone would say "taken" as soon as the encoder holds a message. hyper takes one message
//! more than fits into the HTTP/2 window and asks for the next only when that one may go, so a push
//! is followed by an empty message, which data planes take for a heartbeat: once more is asked for
//! after that one, the push is out. That is what the send timeout measures; pushes below the
//! encoder's 32 KiB buffer count as out at once.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ir::wire::DiscoveryResponse;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tonic::Status;

/// The end that `stream.rs` writes to.
pub(super) struct Outbox {
    queue: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    handed_over: watch::Receiver<u64>,
    sent: u64,
}

/// The end that gRPC reads from.
pub(super) struct Responses {
    queue: mpsc::Receiver<Result<DiscoveryResponse, Status>>,
    handed_over: watch::Sender<u64>,
    taken: u64,
}

/// Why a message did not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendError {
    /// The client is gone.
    Closed,
    /// The client does not read.
    Timeout,
}

/// Both ends of a response stream.
pub(super) fn outbox() -> (Outbox, Responses) {
    let (sender, receiver) = mpsc::channel(1);
    let (tell, told) = watch::channel(0);
    let outbox = Outbox {
        queue: sender,
        handed_over: told,
        sent: 0,
    };
    let responses = Responses {
        queue: receiver,
        handed_over: tell,
        taken: 0,
    };
    (outbox, responses)
}

impl Outbox {
    /// Sends a push and waits until it was handed over to the connection.
    pub(super) async fn push(
        &mut self,
        message: DiscoveryResponse,
        limit: Duration,
    ) -> Result<(), SendError> {
        self.send_all([message, DiscoveryResponse::default()], limit)
            .await
    }

    /// Says that the stream is alive, and how many data planes are.
    pub(super) async fn heartbeat(
        &mut self,
        live_replicas: u32,
        limit: Duration,
    ) -> Result<(), SendError> {
        let heartbeat = DiscoveryResponse {
            live_replicas,
            ..DiscoveryResponse::default()
        };
        self.send_all([heartbeat], limit).await
    }

    async fn send_all<const N: usize>(
        &mut self,
        messages: [DiscoveryResponse; N],
        limit: Duration,
    ) -> Result<(), SendError> {
        let hand_over = async {
            for message in messages {
                let sent = self.queue.send(Ok(message)).await;
                sent.map_err(|_| SendError::Closed)?;
                self.sent += 1;
            }
            let sent = self.sent;
            match self.handed_over.wait_for(|count| *count >= sent).await {
                Ok(_) => Ok(()),
                Err(_) => Err(SendError::Closed),
            }
        };
        tokio::time::timeout(limit, hand_over)
            .await
            .unwrap_or(Err(SendError::Timeout))
    }

    /// Ends the stream with a status; false when the client did not take it within `limit`.
    pub(super) async fn end(self, status: Status, limit: Duration) -> bool {
        let deliver = async {
            if self.queue.send(Err(status)).await.is_ok() {
                self.queue.closed().await;
            }
        };
        tokio::time::timeout(limit, deliver).await.is_ok()
    }

    /// Completes when the client is gone.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }
}

impl Stream for Responses {
    type Item = Result<DiscoveryResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.queue.poll_recv(cx);
        match &polled {
            Poll::Pending => {
                let taken = self.taken;
                self.handed_over
                    .send_if_modified(|count| std::mem::replace(count, taken) != taken);
            }
            Poll::Ready(_) => self.taken += 1,
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_message_counts_as_sent_only_when_more_is_asked_for() {
        let (mut outbox, mut responses) = outbox();
        let limit = Duration::from_secs(5);
        let short = Duration::from_millis(20);
        let unread = outbox.heartbeat(1, short).await;
        assert_eq!(unread, Err(SendError::Timeout));

        assert!(responses.next().await.is_some());
        let reader = tokio::spawn(async move { while responses.next().await.is_some() {} });
        let read = outbox.push(DiscoveryResponse::default(), limit).await;
        assert_eq!(read, Ok(()));
        reader.abort();
        outbox.closed().await;
        let gone = outbox.push(DiscoveryResponse::default(), limit).await;
        assert_eq!(gone, Err(SendError::Closed));
    }
}
