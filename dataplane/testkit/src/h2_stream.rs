//! Bodies of HTTP/2 streams, with flow control, for the fake backends and the clients.
//!
//! The h2 crate leaves windows to its user: here data is sent as the peer opens its window, and the
//! window is given back as data is read.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

/// Sends all of `data`, as fast as the peer takes it.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(capacity) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Err(h2::Error::from(Reason::STREAM_CLOSED));
        };
        let part = data.split_to(capacity?.min(data.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}

/// The next piece of a body; nothing at its end.
pub(crate) async fn receive(stream: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = stream.data().await.transpose()? else {
        return Ok(None);
    };
    stream.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}
