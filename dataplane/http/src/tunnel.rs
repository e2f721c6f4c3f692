//! Bytes both ways between two streams, once both have switched protocols.
//!
//! Each direction ends on its own: the end of one side is passed on to the other, and the tunnel
//! is over when both have ended or one broke. Nobody looks into the bytes.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};

use crate::deadline::{Wait, Watch};
use crate::io::Duplex;

/// Bytes read at once per direction.
const READ_BYTES: usize = 16 * 1024;

/// What a tunnel carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) from_client: u64,
    pub(crate) to_client: u64,
}

/// Carries bytes until both directions ended; `rest` was read from the backend already.
pub(crate) async fn run(
    client: &Duplex,
    client_buf: &mut BytesMut,
    upstream: &Duplex,
    rest: Bytes,
    watch: &Watch,
    carried: &mut Carried,
) -> io::Result<()> {
    watch.await_upstream(Wait::Tunnel);
    let Carried {
        from_client,
        to_client,
    } = carried;
    let mut rest = BytesMut::from(&rest[..]);
    let up = std::pin::pin!(copy(client, upstream, client_buf, watch, from_client));
    let down = std::pin::pin!(copy(upstream, client, &mut rest, watch, to_client));
    match select(up, down).await {
        Either::Left((Ok(()), down)) => down.await,
        Either::Right((Ok(()), up)) => up.await,
        Either::Left((error, _)) | Either::Right((error, _)) => error,
    }
}

async fn copy(
    from: &Duplex,
    to: &Duplex,
    buf: &mut BytesMut,
    watch: &Watch,
    bytes: &mut u64,
) -> io::Result<()> {
    loop {
        if !buf.is_empty() {
            *bytes += buf.len() as u64;
            to.write_all(buf, &mut Bytes::new(), &[]).await?;
            watch.await_upstream(Wait::Tunnel);
        }
        if from.read(buf, READ_BYTES).await? == 0 {
            return to.shutdown().await;
        }
    }
}
