//! Host calls that would leave the gateway: HTTP to clusters that the plugin may call; gRPC is in `grpc`.
//!
//! A call is only noted here; `instance` has the proxy send it once the guest has returned. Foreign
//! functions are refused with a status that SDKs understand.

use std::time::Duration;

use bytes::Bytes;

use crate::callout::HttpCall;
use crate::host::Host;
use crate::pairs;

use super::{Done, Guest, Status, handed, handed_two, put_number};

/// Bytes of a call's head, or of the names and the metadata of one by gRPC.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a call's body.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The longest that a call may take.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(60);

#[expect(clippy::too_many_arguments, reason = "the ABI has as many")]
pub(super) fn http(
    guest: &mut Guest<'_>,
    cluster: u32,
    cluster_len: u32,
    head: u32,
    head_len: u32,
    body: u32,
    body_len: u32,
    trailers: u32,
    trailers_len: u32,
    timeout: u32,
    id: u32,
) -> Done {
    handed(guest, trailers, trailers_len)?;
    let (cluster, _) = handed(guest, cluster, cluster_len)?;
    let cluster = std::str::from_utf8(cluster).map_err(|_| Status::BadArgument)?;
    let cluster = cluster.to_owned();
    let (head, body, host) = handed_two(guest, (head, head_len), (body, body_len))?;
    if !may_call(host, &cluster) {
        return Err(Status::BadArgument.into());
    }
    if head.len() > HEAD_BYTES_MAX || body.len() > BODY_BYTES_MAX {
        return Err(Status::BadArgument.into());
    }
    let head = pairs::decode(head).ok_or(Status::ParseFailure)?;
    let has = |name: &str| head.iter().any(|(it, _)| *it == name.as_bytes());
    if ![":method", ":path", ":authority"].into_iter().all(has) {
        return Err(Status::BadArgument.into());
    }
    let call = HttpCall {
        cluster,
        head: head.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect(),
        body: Bytes::copy_from_slice(body),
        timeout: Duration::from_millis(u64::from(timeout)).min(TIMEOUT_MAX),
    };
    let number = host.next_call().ok_or(Status::InternalFailure)?;
    host.calls += 1;
    let context = host.effective;
    host.outbox.push((number, context, call));
    put_number(guest, id, number)
}

/// Whether the plugin may call that cluster, and there is one.
pub(super) fn may_call(host: &Host, cluster: &str) -> bool {
    let is_there = host.knows.as_ref().is_some_and(|it| it.knows(cluster));
    is_there && host.settings.network.allows(cluster)
}

/// There are none.
pub(super) fn foreign(
    guest: &mut Guest<'_>,
    name: u32,
    name_len: u32,
    data: u32,
    data_len: u32,
    _: u32,
    _: u32,
) -> Done {
    handed_two(guest, (name, name_len), (data, data_len))?;
    Err(Status::NotFound.into())
}
