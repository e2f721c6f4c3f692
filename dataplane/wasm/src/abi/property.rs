//! Properties: what a plugin asks by name about the request, the response, the connection and itself.
//!
//! The names are Envoy's attributes. What a plugin set itself comes first; what follows from the messages is
//! answered here, the rest by the proxy's `Facts`. What is not known is not found, never made up.

use std::borrow::Cow;

use crate::facts::Fact;
use crate::head::Head;
use crate::host::{Host, ROOT, StreamContext};

use super::{Done, Guest, Status, Stop, give, handed, handed_two};

pub(super) fn get(guest: &mut Guest<'_>, path: u32, path_len: u32, out: u32, out_len: u32) -> Done {
    let (path, host) = handed(guest, path, path_len)?;
    let value = property(host, path).ok_or(Stop::Told(Status::NotFound))?;
    give(guest, &value, out, out_len)
}

pub(super) fn set(
    guest: &mut Guest<'_>,
    path: u32,
    path_len: u32,
    value: u32,
    value_len: u32,
) -> Done {
    let (path, value, host) = handed_two(guest, (path, path_len), (value, value_len))?;
    let stream = host.stream().ok_or(Status::BadArgument)?;
    match stream.set_property(path, value) {
        true => Ok(()),
        false => Err(Status::InternalFailure.into()),
    }
}

fn property(host: &Host, path: &[u8]) -> Option<Vec<u8>> {
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    let stream = host.contexts.get(&host.effective);
    if let Some(own) = stream.and_then(|stream| stream.properties.get(path)) {
        return Some(own.clone());
    }
    let text = std::str::from_utf8(path).ok()?;
    let parts: Vec<&str> = text.split(['\0']).collect();
    match parts.as_slice() {
        ["plugin_name"] => return Some(host.settings.name.as_bytes().to_vec()),
        ["plugin_root_id"] => return Some(host.settings.root_id.as_bytes().to_vec()),
        ["plugin_vm_id"] => return Some(host.settings.vm_id.as_bytes().to_vec()),
        _ => {}
    }
    if host.effective == ROOT {
        return None;
    }
    let stream = stream?;
    let of_message = match parts.as_slice() {
        ["request", "total_size"] => total_size(stream, 0),
        ["request", rest @ ..] => stream.readable(0).and_then(|head| of_request(head, rest)),
        ["response", "total_size"] => total_size(stream, 1),
        ["response", "grpc_status"] => grpc_status(stream),
        ["response", rest @ ..] => stream.readable(1).and_then(|head| of_response(head, rest)),
        _ => None,
    };
    of_message.or_else(|| Some(stream.facts.fact(&parts)?.into_bytes()))
}

fn of_request(head: &Head, path: &[&str]) -> Option<Vec<u8>> {
    let pseudo = |name| head.pseudo(name).map(|value| value.to_vec());
    match path {
        ["path"] => pseudo(":path"),
        ["url_path"] => {
            let path = head.pseudo(":path")?;
            Some(path.split(|byte| *byte == b'?').next()?.to_vec())
        }
        ["query"] => {
            let path = head.pseudo(":path")?;
            let at = path.iter().position(|byte| *byte == b'?')?;
            Some(path[at + 1..].to_vec())
        }
        ["host"] => pseudo(":authority"),
        ["method"] => pseudo(":method"),
        ["scheme"] => pseudo(":scheme"),
        ["headers"] => Some(head.encode()),
        ["headers", name] => head.value(lower(name).as_bytes()),
        ["referer"] => head.value(b"referer"),
        ["useragent"] => head.value(b"user-agent"),
        ["id"] => head.value(b"x-request-id"),
        _ => None,
    }
}

fn of_response(head: &Head, path: &[&str]) -> Option<Vec<u8>> {
    match path {
        ["code"] => {
            let code = std::str::from_utf8(head.pseudo(":status")?).ok()?;
            Some(code.parse::<i64>().ok()?.to_le_bytes().to_vec())
        }
        ["headers"] => Some(head.encode()),
        ["headers", name] => head.value(lower(name).as_bytes()),
        _ => None,
    }
}

/// Bytes of a message with its fields; known once those of the body are.
fn total_size(stream: &StreamContext, at: usize) -> Option<Vec<u8>> {
    let of = ["request", "response"][at];
    let Fact::Number(body) = stream.facts.fact(&[of, "size"])? else {
        return None;
    };
    let trailers = stream.readable_trailers(at).map_or(0, Head::bytes);
    let fields = i64::try_from(stream.readable(at)?.bytes() + trailers).ok()?;
    Some(body.saturating_add(fields).to_le_bytes().to_vec())
}

/// In the trailers, or in the head of a response that has nothing else.
fn grpc_status(stream: &StreamContext) -> Option<Vec<u8>> {
    let mut places = [stream.readable_trailers(1), stream.readable(1)]
        .into_iter()
        .flatten();
    let status = places.find_map(|head| head.value(b"grpc-status"))?;
    let status: i64 = std::str::from_utf8(&status).ok()?.parse().ok()?;
    Some(status.to_le_bytes().to_vec())
}

fn lower(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}
