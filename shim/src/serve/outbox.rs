//! The response side of one stream: what is put in goes out, and the sender learns when it is out.
//!
//! A channel alone would say "taken" as soon as the encoder holds a message. gRPC asks for the next
//! one only after the last fitted into the HTTP/2 window, so being asked again with nothing left is
//! the sign that everything was handed over; that is what the send timeout measures.

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
    /// Sends a message and waits until it was handed over to the connection.
    pub(super) async fn send(
        &mut self,
        message: DiscoveryResponse,
        limit: Duration,
    ) -> Result<(), SendError> {
        let hand_over = async {
            self.queue
                .send(Ok(message))
                .await
                .map_err(|_| SendError::Closed)?;
            self.sent += 1;
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
    async fn a_message_counts_as_sent_only_when_the_next_is_asked_for() {
        let (mut outbox, mut responses) = outbox();
        let limit = Duration::from_secs(5);
        let short = Duration::from_millis(20);
        let unread = outbox.send(DiscoveryResponse::default(), short).await;
        assert_eq!(unread, Err(SendError::Timeout));

        assert!(responses.next().await.is_some());
        let reader = tokio::spawn(async move { while responses.next().await.is_some() {} });
        let read = outbox.send(DiscoveryResponse::default(), limit).await;
        assert_eq!(read, Ok(()));
        reader.abort();
        outbox.closed().await;
        let gone = outbox.send(DiscoveryResponse::default(), limit).await;
        assert_eq!(gone, Err(SendError::Closed));
    }
}
