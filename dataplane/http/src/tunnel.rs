//! Bytes both ways between two streams, once both have switched protocols.
//!
//! Each direction ends on its own: the end of one side is passed on to the other, and the tunnel
//! is over when both have ended or one broke. Nobody looks into the bytes. When the connection shall
//! end, a tunnel goes on for a while, and then both sides see a clean end.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, join, select};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::deadline::{Wait, Watch};
use crate::io::Duplex;

/// Bytes read at once per direction.
const READ_BYTES: usize = 16 * 1024;

/// What a tunnel carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) from_client: u64,
    pub(crate) to_client: u64,
    /// It had to end before both sides had ended it.
    pub(crate) is_parted: bool,
}

/// Both sides, and when they are parted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'a> {
    pub(crate) client: &'a Duplex,
    pub(crate) upstream: &'a Duplex,
    /// Cancelled when the tunnel shall end.
    pub(crate) drain: &'a CancellationToken,
    /// How long it may go on from then.
    pub(crate) drain_time: Duration,
    /// How long both sides may take to be told of the end.
    pub(crate) shutdown_time: Duration,
}

/// Carries bytes until both directions ended; `rest` was read from the backend already.
pub(crate) async fn run(
    ends: Ends<'_>,
    client_buf: &mut BytesMut,
    rest: Bytes,
    watch: &Watch,
    carried: &mut Carried,
) -> io::Result<()> {
    watch.await_upstream(Wait::Tunnel);
    let Ends {
        client, upstream, ..
    } = ends;
    let Carried {
        from_client,
        to_client,
        is_parted,
    } = carried;
    let mut rest = BytesMut::from(&rest[..]);
    let carrying = async {
        let up = pin!(copy(client, upstream, client_buf, watch, from_client));
        let down = pin!(copy(upstream, client, &mut rest, watch, to_client));
        match select(up, down).await {
            Either::Left((Ok(()), down)) => down.await,
            Either::Right((Ok(()), up)) => up.await,
            Either::Left((error, _)) | Either::Right((error, _)) => error,
        }
    };
    let drained = async {
        ends.drain.cancelled().await;
        sleep(ends.drain_time).await;
    };
    match select(pin!(carrying), pin!(drained)).await {
        Either::Left((ended, _)) => ended,
        Either::Right(((), _)) => {
            *is_parted = true;
            part(ends).await
        }
    }
}

/// Ends both directions of both sides, as far as they take it: what a WebSocket would say at such an
/// end (1001) is for its own two sides to say.
async fn part(ends: Ends<'_>) -> io::Result<()> {
    let both = join(ends.client.shutdown(), ends.upstream.shutdown());
    let (client, upstream) = timeout(ends.shutdown_time, both).await?;
    client.and(upstream)
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
            to.write_all(buf).await?;
            watch.await_upstream(Wait::Tunnel);
        }
        if from.read(buf, READ_BYTES).await? == 0 {
            return to.shutdown().await;
        }
    }
}
