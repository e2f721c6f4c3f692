//! Host calls about messages: heads, trailers, bodies, answers of the plugin's own, going on.
//!
//! They reach the message that the guest is called for, or another one of its own whose context it made
//! the effective one. A head that it let go can be read, and what is written to it the plugin alone sees.

use bytes::Bytes;
use http::HeaderMap;

use crate::callout::{Fields, GrpcPart};
use crate::head::{Head, NotAllowed};
use crate::host::{Host, LocalResponse};
use crate::pairs;

use super::{Done, Guest, Status, Stop, give, handed, handed_two, put_number};

/// The first buffers of the ABI: those of a stream.
const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_BODY: u32 = 4;
const GRPC_MESSAGE: u32 = 5;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;

/// Bytes of a body that a plugin answers with.
const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// The buffer of that number, if it is there at this moment.
fn buffer(host: &mut Host, kind: u32) -> Result<Bytes, Stop> {
    let body = match kind {
        REQUEST_BODY | RESPONSE_BODY => {
            let stream = host.stream().ok_or(Status::NotFound)?;
            let body = match kind {
                REQUEST_BODY => &stream.request_body,
                _ => &stream.response_body,
            };
            body.bytes.clone()
        }
        CALL_BODY => host.answer.as_ref().ok_or(Status::NotFound)?.body.clone(),
        GRPC_MESSAGE => match &host.grpc_part {
            Some(GrpcPart::Message(message)) => message.clone(),
            _ => return Err(Status::NotFound.into()),
        },
        VM_CONFIGURATION => Bytes::new(),
        PLUGIN_CONFIGURATION => host.settings.config.clone(),
        2 | 3 | 8 => return Err(Status::NotFound.into()),
        _ => return Err(Status::BadArgument.into()),
    };
    Ok(body)
}

pub(super) fn get_buffer(
    guest: &mut Guest<'_>,
    kind: u32,
    start: u32,
    length: u32,
    out: u32,
    out_len: u32,
) -> Done {
    let bytes = buffer(guest.data_mut(), kind)?;
    let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
    let start = size(start).min(bytes.len());
    let end = start.saturating_add(size(length)).min(bytes.len());
    give(guest, &bytes[start..end], out, out_len)
}

pub(super) fn buffer_status(guest: &mut Guest<'_>, kind: u32, length: u32, flags: u32) -> Done {
    let bytes = buffer(guest.data_mut(), kind)?.len();
    let bytes = u32::try_from(bytes).map_err(|_| Status::InternalFailure)?;
    put_number(guest, length, bytes)?;
    put_number(guest, flags, 0)
}

pub(super) fn set_buffer(
    guest: &mut Guest<'_>,
    kind: u32,
    start: u32,
    length: u32,
    data: u32,
    data_len: u32,
) -> Done {
    let (data, host) = handed(guest, data, data_len)?;
    let bytes_max = host.settings.limits.body_bytes;
    let stream = host.stream().ok_or(Status::NotFound)?;
    let body = match kind {
        REQUEST_BODY => &mut stream.request_body,
        RESPONSE_BODY => &mut stream.response_body,
        _ => return Err(Status::BadArgument.into()),
    };
    if !body.is_open {
        return Err(Status::NotFound.into());
    }
    let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
    match body.replace(size(start), size(length), data, bytes_max) {
        true => Ok(()),
        false => Err(Status::BadArgument.into()),
    }
}

/// A map that can be read at this moment: a head, or the fields of a call's answer.
enum Map<'a> {
    Head(&'a Head),
    Fields(&'a Fields),
}

/// Nothing for a map that is not there at this moment.
fn map(host: &Host, kind: u32) -> Result<Option<Map<'_>>, Stop> {
    let stream = host.contexts.get(&host.effective);
    let fields = match kind {
        0 | 2 => {
            let head = stream.and_then(|it| it.readable(usize::from(kind == 2)));
            return Ok(head.map(Map::Head));
        }
        1 | 3 => {
            let trailers = stream.and_then(|it| it.readable_trailers(usize::from(kind == 3)));
            return Ok(trailers.map(Map::Head));
        }
        4 => match &host.grpc_part {
            Some(GrpcPart::Head(fields)) => Some(fields),
            _ => None,
        },
        5 => match &host.grpc_part {
            Some(GrpcPart::Trailers(fields)) => Some(fields),
            _ => None,
        },
        6 => host.answer.as_ref().map(|answer| &answer.head),
        7 => host.answer.as_ref().map(|answer| &answer.trailers),
        _ => return Err(Status::BadArgument.into()),
    };
    Ok(fields.map(Map::Fields))
}

/// Envoy takes what is written to a head that was sent on, and it changes nothing but what is read of it
/// later; SDKs take a refusal for a fault of their host. Mostly it is an oversight, so the operator is told.
fn map_mut(host: &mut Host, kind: u32) -> Result<&mut Head, Stop> {
    let stream = host.contexts.get_mut(&host.effective);
    let stream = stream.ok_or(Status::BadArgument)?;
    let found = match kind {
        0 | 2 => stream.writable(usize::from(kind == 2)),
        1 | 3 => stream.writable_trailers(usize::from(kind == 3)),
        4..=7 => None,
        _ => return Err(Status::BadArgument.into()),
    };
    let (head, is_late) = found.ok_or(Status::NotFound)?;
    if is_late && !std::mem::replace(&mut host.wrote_late, true) {
        tracing::warn!(
            plugin = &*host.settings.name,
            "a plugin changes fields of a message that it let go before, which nobody but itself sees; \
             look at which of its hooks does"
        );
    }
    Ok(head)
}

/// A map that is not there is an empty one, as in Envoy: SDKs take any other answer for a fault.
fn encoded(host: &Host, kind: u32) -> Result<Vec<u8>, Stop> {
    Ok(match map(host, kind)? {
        Some(Map::Head(head)) => head.encode(),
        Some(Map::Fields(fields)) => pairs::encode(fields.iter().map(|(n, v)| (&n[..], &v[..]))),
        None => Vec::new(),
    })
}

pub(super) fn pairs(guest: &mut Guest<'_>, kind: u32, out: u32, out_len: u32) -> Done {
    let encoded = encoded(guest.data(), kind)?;
    give(guest, &encoded, out, out_len)
}

pub(super) fn pairs_size(guest: &mut Guest<'_>, kind: u32, size: u32) -> Done {
    let bytes = encoded(guest.data(), kind)?.len();
    let bytes = u32::try_from(bytes).map_err(|_| Status::InternalFailure)?;
    put_number(guest, size, bytes)
}

pub(super) fn set_pairs(guest: &mut Guest<'_>, kind: u32, data: u32, data_len: u32) -> Done {
    let (data, host) = handed(guest, data, data_len)?;
    let pairs = pairs::decode(data).ok_or(Status::ParseFailure)?;
    let head = map_mut(host, kind)?;
    Ok(head.set(&pairs).map_err(|_| Status::BadArgument)?)
}

pub(super) fn value(
    guest: &mut Guest<'_>,
    kind: u32,
    name: u32,
    name_len: u32,
    out: u32,
    out_len: u32,
) -> Done {
    let (name, host) = handed(guest, name, name_len)?;
    let value = match map(host, kind)?.ok_or(Status::NotFound)? {
        Map::Head(head) => head.value(name),
        Map::Fields(fields) => {
            let mut fields = fields.iter();
            let found = fields.find(|(it, _)| it.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        }
    };
    give(guest, &value.ok_or(Status::NotFound)?, out, out_len)
}

pub(super) fn add(
    guest: &mut Guest<'_>,
    kind: u32,
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
) -> Done {
    write(guest, kind, (name, name_len), (value, value_len), Head::add)
}

pub(super) fn replace(
    guest: &mut Guest<'_>,
    kind: u32,
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
) -> Done {
    write(
        guest,
        kind,
        (name, name_len),
        (value, value_len),
        Head::replace,
    )
}

fn write(
    guest: &mut Guest<'_>,
    kind: u32,
    name: (u32, u32),
    value: (u32, u32),
    change: impl FnOnce(&mut Head, &[u8], &[u8]) -> Result<(), NotAllowed>,
) -> Done {
    let (name, value, host) = handed_two(guest, name, value)?;
    let head = map_mut(host, kind)?;
    Ok(change(head, name, value).map_err(|NotAllowed| Status::BadArgument)?)
}

pub(super) fn remove(guest: &mut Guest<'_>, kind: u32, name: u32, name_len: u32) -> Done {
    let (name, host) = handed(guest, name, name_len)?;
    map_mut(host, kind)?.remove(name);
    Ok(())
}

/// Lets a request (0) or a response (1) go on that is held back.
pub(super) fn resume(guest: &mut Guest<'_>, kind: u32) -> Done {
    let host = guest.data_mut();
    let effective = host.effective;
    let stream = host.stream().ok_or(Status::BadArgument)?;
    match kind {
        0 => stream.resumed_request = true,
        1 => stream.resumed_response = true,
        2 | 3 => return Err(Status::Unimplemented.into()),
        _ => return Err(Status::BadArgument.into()),
    }
    host.woken.push(effective);
    Ok(())
}

pub(super) fn resume_request(guest: &mut Guest<'_>) -> Done {
    resume(guest, 0)
}

pub(super) fn resume_response(guest: &mut Guest<'_>) -> Done {
    resume(guest, 1)
}

pub(super) fn close(_: &mut Guest<'_>, _: u32) -> Done {
    Err(Status::Unimplemented.into())
}

/// Where a plugin may change the route, the route is looked up behind it anyway.
pub(super) fn clear_route_cache(_: &mut Guest<'_>) -> Done {
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the ABI has as many")]
pub(super) fn reply(
    guest: &mut Guest<'_>,
    status: u32,
    details: u32,
    details_len: u32,
    body: u32,
    body_len: u32,
    fields: u32,
    fields_len: u32,
    grpc: u32,
) -> Done {
    handed(guest, details, details_len)?;
    let (body, fields, host) = handed_two(guest, (body, body_len), (fields, fields_len))?;
    let status = u16::try_from(status).map_err(|_| Status::BadArgument)?;
    if !(200..600).contains(&status) || body.len() > REPLY_BYTES_MAX {
        return Err(Status::BadArgument.into());
    }
    let pairs = pairs::decode(fields).ok_or(Status::ParseFailure)?;
    let mut head = Head::of(HeaderMap::new());
    for (name, value) in pairs {
        let is_ours = name.first() == Some(&b':') || name.eq_ignore_ascii_case(b"content-length");
        if !is_ours {
            head.add(name, value).map_err(|_| Status::BadArgument)?;
        }
    }
    let local = LocalResponse {
        status,
        fields: head.fields,
        body: Bytes::copy_from_slice(body),
        // -1 says that the plugin has nothing to say of it.
        grpc_status: (grpc != u32::MAX).then_some(grpc),
    };
    let effective = host.effective;
    let stream = host.stream().ok_or(Status::BadArgument)?;
    stream.local = Some(local);
    host.woken.push(effective);
    Ok(())
}
