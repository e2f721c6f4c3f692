//! gRPC calls of plugins, unary and as streams, to clusters that the plugin may call.
//!
//! As `calls`, these only note what is to be done; `instance` has it carried out and tells the guest what
//! came. Messages that wait to be sent are bounded for each instance.

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;

use crate::callout::{Fields, GrpcCall, GrpcMessage};
use crate::host::Host;
use crate::pairs;

use super::calls::{HEAD_BYTES_MAX, TIMEOUT_MAX, may_call};
use super::{Done, Guest, Status, Stop, give, handed, put_number};

/// Bytes of messages of one instance that wait to be sent.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

#[expect(clippy::too_many_arguments, reason = "the ABI has as many")]
pub(super) fn call(
    guest: &mut Guest<'_>,
    cluster: u32,
    cluster_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    message: u32,
    message_len: u32,
    timeout: u32,
    id: u32,
) -> Done {
    let mut call = begin(
        guest,
        (cluster, cluster_len),
        [(service, service_len), (method, method_len)],
        (metadata, metadata_len),
    )?;
    call.timeout = Some(Duration::from_millis(u64::from(timeout)).min(TIMEOUT_MAX));
    let message = waiting(guest, message, message_len)?;
    start(guest, call, Some(message), id)
}

#[expect(clippy::too_many_arguments, reason = "the ABI has as many")]
pub(super) fn stream(
    guest: &mut Guest<'_>,
    cluster: u32,
    cluster_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    id: u32,
) -> Done {
    let call = begin(
        guest,
        (cluster, cluster_len),
        [(service, service_len), (method, method_len)],
        (metadata, metadata_len),
    )?;
    start(guest, call, None, id)
}

pub(super) fn send(
    guest: &mut Guest<'_>,
    id: u32,
    message: u32,
    message_len: u32,
    ends: u32,
) -> Done {
    let is_open = |host: &Host| host.grpc.get(&id).is_some_and(|it| it.messages.is_some());
    if !is_open(guest.data()) {
        return Err(Status::NotFound.into());
    }
    let message = waiting(guest, message, message_len)?;
    let side = guest.data_mut().grpc.get_mut(&id);
    let side = side.ok_or(Status::NotFound)?;
    if let Some(messages) = &side.messages {
        match messages.try_send(message) {
            // Where nobody takes it any more, the end of the call is on its way to the guest.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => return Err(Status::InternalFailure.into()),
        }
    }
    if ends != 0 {
        side.messages = None;
    }
    Ok(())
}

/// Says that nothing more is sent; what comes is still told.
pub(super) fn close(guest: &mut Guest<'_>, id: u32) -> Done {
    let side = guest.data_mut().grpc.get_mut(&id);
    let side = side.filter(|it| it.is_stream).ok_or(Status::NotFound)?;
    side.messages = None;
    Ok(())
}

/// Ends a call; the guest is told nothing more of it.
pub(super) fn cancel(guest: &mut Guest<'_>, id: u32) -> Done {
    let side = guest.data_mut().grpc.remove(&id);
    side.map(drop).ok_or(Stop::Told(Status::NotFound))
}

/// Of the call that ended last.
pub(super) fn status(guest: &mut Guest<'_>, code: u32, message: u32, message_len: u32) -> Done {
    let end = guest.data().grpc_end.clone();
    put_number(guest, code, end.status)?;
    give(guest, end.message.as_bytes(), message, message_len)
}

/// What a call begins with.
fn begin(
    guest: &mut Guest<'_>,
    cluster: (u32, u32),
    names: [(u32, u32); 2],
    metadata: (u32, u32),
) -> Result<GrpcCall, Stop> {
    let cluster = text(guest, cluster)?;
    let [service, method] = names;
    let (service, method) = (text(guest, service)?, text(guest, method)?);
    let (fields, host) = handed(guest, metadata.0, metadata.1)?;
    let bytes = service.len() + method.len() + fields.len();
    if bytes > HEAD_BYTES_MAX || !may_call(host, &cluster) {
        return Err(Status::BadArgument.into());
    }
    let fields = match fields.is_empty() {
        true => Vec::new(),
        false => pairs::decode(fields).ok_or(Status::ParseFailure)?,
    };
    let metadata: Fields = fields
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    Ok(GrpcCall {
        cluster,
        path: format!("/{service}/{method}"),
        metadata,
        timeout: None,
    })
}

fn text(guest: &mut Guest<'_>, (start, length): (u32, u32)) -> Result<String, Stop> {
    let (bytes, _) = handed(guest, start, length)?;
    let text = std::str::from_utf8(bytes).map_err(|_| Status::BadArgument)?;
    Ok(text.to_owned())
}

fn waiting(guest: &mut Guest<'_>, start: u32, length: u32) -> Result<GrpcMessage, Stop> {
    let (bytes, host) = handed(guest, start, length)?;
    let message = GrpcMessage::new(bytes, &host.grpc_waiting, WAITING_BYTES_MAX);
    message.ok_or(Stop::Told(Status::InternalFailure))
}

fn start(guest: &mut Guest<'_>, call: GrpcCall, first: Option<GrpcMessage>, id: u32) -> Done {
    let number = guest.data_mut().begin_grpc(call, first);
    put_number(guest, id, number.ok_or(Status::InternalFailure)?)
}
