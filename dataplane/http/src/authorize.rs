//! External authorization (Gateway API `HTTPExternalAuthFilter`): asks a service whether a request
//! may pass.
//!
//! Called by the line when the filter phase comes to such a filter. The service is asked by HTTP or by
//! Envoy's gRPC protocol. It fails closed: only a clear yes in time lets the request pass. What the
//! service says about header fields is checked here, and fields of framing are never taken from it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tokio::time::timeout;

use dataplane_config::{AuthProtocol, ExternalAuth};
use dataplane_route::table::RouteKind;
use dataplane_telemetry::Reason;
use ir::authorization::{Check, FieldEdit, PATH, Verdict};

use crate::arrival::Arrival;
use crate::call::{self, Answer, Body, Message, Wanted, Way};
use crate::context::Context;
use crate::downstream::{ClientError, RequestBody, Responder};
use crate::edit::Edit;
use crate::h1::{Authority, BodyLength};
use crate::message::Request;
use crate::reply::Reply;
use crate::worker::Worker;

/// Fields of the service's own message, which say nothing about the request's.
const NOT_TO_COPY: [HeaderName; 15] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::HOST,
    header::EXPECT,
    header::DATE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("authority"),
];

/// Asks; `None` when the request may pass, with the changes that the service wants already made.
pub(crate) async fn ask(
    worker: &Worker,
    arrival: &Arrival,
    ctx: &mut Context<'_>,
    request: &mut Request,
    (body, responder): (&mut RequestBody<'_>, &mut Responder<'_>),
    filter: &ExternalAuth,
) -> Result<Option<Reply>, ClientError> {
    let failed = |reason| Ok(Some(Reply::new(reason)));
    let cluster = ctx.config.cluster_by_keys(&filter.cluster_keys);
    let Some(cluster) = cluster else {
        return failed(Reason::InvalidBackend);
    };
    let kind = match filter.protocol {
        AuthProtocol::Http { .. } => RouteKind::Http,
        AuthProtocol::Grpc { .. } => RouteKind::Grpc,
    };
    let Ok(way) = Way::choose(cluster, kind, ctx.listener, worker, ctx.started) else {
        return failed(Reason::AuthorizationFailed);
    };
    let forwarded = match beginning(worker, request, body, responder, filter).await? {
        Ok(bytes) => bytes,
        Err(reason) => return failed(reason),
    };
    let question = match &filter.protocol {
        AuthProtocol::Http {
            path_prefix,
            allowed,
            ..
        } => over_http(request, path_prefix, allowed, forwarded),
        AuthProtocol::Grpc { allowed } => over_grpc(
            request,
            arrival,
            ctx,
            allowed,
            &filter.authority,
            &forwarded,
        ),
    };
    let Some((message, body)) = question else {
        return failed(Reason::Internal);
    };
    let limit = worker.settings.authorization_timeout;
    let wanted = Wanted {
        idle: limit,
        body_bytes_max: worker.settings.authorization_bytes_max,
        keeps_body: true,
    };
    let answer = timeout(limit, call::send(worker, &way, &message, body, wanted)).await;
    let Ok(Ok(answer)) = answer else {
        return failed(Reason::AuthorizationFailed);
    };
    let judged = match &filter.protocol {
        AuthProtocol::Http { returned, .. } => judge_http(answer, returned, request),
        AuthProtocol::Grpc { .. } => judge_grpc(&answer, ctx, request),
    };
    Ok(match judged {
        Some(Judged::Pass) => None,
        Some(Judged::Deny(reply)) => Some(*reply),
        None => Some(Reply::new(Reason::AuthorizationFailed)),
    })
}

/// What the service's answer means; where this is missing the answer means nothing.
enum Judged {
    Pass,
    Deny(Box<Reply>),
}

/// The body, as far as the service shall see it: all of it or, beyond the limit, a refusal, so that
/// nothing passes that the service has not seen.
async fn beginning(
    worker: &Worker,
    request: &Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
    filter: &ExternalAuth,
) -> Result<Result<Bytes, Reason>, ClientError> {
    let max = filter.body_bytes_max;
    if max == 0 || request.body.is_empty() {
        return Ok(Ok(Bytes::new()));
    }
    if let BodyLength::Length(length) = request.body
        && length > max as u64
    {
        return Ok(Err(Reason::BodyTooLarge));
    }
    if request.headers.contains_key(header::EXPECT) {
        responder
            .interim(StatusCode::CONTINUE, &HeaderMap::new())
            .await?;
    }
    let limit = worker.settings.request_body_idle;
    // One byte more tells a body that ends here from one that goes on.
    let Ok(prefix) = timeout(limit, body.read_ahead(max + 1, || {})).await else {
        return Ok(Err(Reason::BodyTimeout));
    };
    let prefix = prefix?;
    Ok(match prefix.bytes.len() > max {
        true => Err(Reason::BodyTooLarge),
        false => Ok(prefix.bytes),
    })
}

fn over_http(
    request: &Request,
    path_prefix: &str,
    allowed: &[HeaderName],
    forwarded: Bytes,
) -> Option<(Message, Body)> {
    let mut headers = HeaderMap::new();
    for name in allowed.iter().chain([&header::AUTHORIZATION]) {
        if NOT_TO_COPY.contains(name) && *name != header::CONTENT_TYPE || headers.contains_key(name)
        {
            continue;
        }
        for value in request.headers.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(forwarded.len()));
    let target = match request.target.as_str() {
        // Of OPTIONS about the server as a whole.
        "*" => "/",
        target => target,
    };
    let target = [path_prefix.trim_end_matches('/'), target].concat();
    let message = Message {
        method: request.method.clone(),
        authority: request.authority.clone(),
        target: PathAndQuery::from_maybe_shared(Bytes::from(target)).ok()?,
        headers,
        takes_trailers: false,
        is_repeatable: true,
    };
    Some((message, Body::Whole(forwarded)))
}

fn over_grpc(
    request: &Request,
    arrival: &Arrival,
    ctx: &Context<'_>,
    allowed: &[HeaderName],
    authority: &str,
    forwarded: &Bytes,
) -> Option<(Message, Body)> {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &request.headers {
        // Gateway API: an empty list allows all.
        if !allowed.is_empty() && !allowed.contains(name) {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        // Cookies that stand apart are one list (RFC 6265 5.4), as backends read them.
        let separator = if name == header::COOKIE { "; " } else { "," };
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|held| {
                held.push_str(separator);
                held.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    let check = Check {
        source: match arrival.client.ip() == ctx.client {
            true => arrival.client,
            // A proxy in front tells no port.
            false => SocketAddr::new(ctx.client, 0),
        },
        destination: arrival.bind,
        method: request.method.as_str().to_owned(),
        path: request.target.as_str().to_owned(),
        host: request.authority.as_str().to_owned(),
        scheme: ctx.scheme(arrival).as_str(),
        protocol: match request.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        headers,
        size: match request.body {
            BodyLength::Length(length) => i64::try_from(length).unwrap_or(-1),
            BodyLength::None => 0,
            _ => -1,
        },
        body: forwarded.to_vec(),
    };
    let check = check.encode();
    let mut frame = BytesMut::with_capacity(5 + check.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(check.len()).ok()?);
    frame.put_slice(&check);
    let mut headers = HeaderMap::new();
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, grpc);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let message = Message {
        method: Method::POST,
        authority: Authority::parse(Bytes::copy_from_slice(authority.as_bytes())).ok()?,
        target: PathAndQuery::from_static(PATH),
        headers,
        takes_trailers: true,
        is_repeatable: true,
    };
    Some((message, Body::Whole(frame.freeze())))
}

fn judge_http(answer: Answer, returned: &[HeaderName], request: &mut Request) -> Option<Judged> {
    if answer.status == StatusCode::OK {
        // What the service is to say must not come from the client when the service does not say it.
        for name in returned.iter().filter(|name| !NOT_TO_COPY.contains(name)) {
            request.headers.remove(name);
        }
        for name in answer.headers.keys() {
            let is_wanted = returned.is_empty() || returned.contains(name);
            if !is_wanted || NOT_TO_COPY.contains(name) {
                continue;
            }
            request.headers.remove(name);
            for value in answer.headers.get_all(name) {
                request
                    .headers
                    .try_append(name.clone(), value.clone())
                    .ok()?;
            }
        }
        return Some(Judged::Pass);
    }
    // An answer that is cut here would be another one.
    if !answer.is_whole {
        return None;
    }
    let status = match answer.status.as_u16() {
        300..=303 | 305..600 => answer.status,
        // Whatever it is, it is no yes, and must not look like one.
        _ => StatusCode::FORBIDDEN,
    };
    let mut headers = answer.headers;
    for name in [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TRAILER,
    ] {
        headers.remove(name);
    }
    Some(Judged::Deny(Box::new(Reply {
        reason: Reason::AuthorizationDenied,
        status,
        headers,
        body: answer.body,
    })))
}

fn judge_grpc(answer: &Answer, ctx: &mut Context<'_>, request: &mut Request) -> Option<Judged> {
    let fields = answer.trailers.as_ref().unwrap_or(&answer.headers);
    let is_ok = answer.status == StatusCode::OK
        && answer.is_whole
        && fields.get("grpc-status").is_some_and(|code| code == "0");
    if !is_ok {
        return None;
    }
    // One message without compression (gRPC over HTTP/2, Length-Prefixed-Message).
    let (prefix, message) = answer.body.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    match Verdict::decode(message)? {
        Verdict::Allowed {
            request: edits,
            remove,
            response,
        } => {
            let edits = checked(edits)?;
            let response = checked(response)?;
            for name in remove {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                if !NOT_TO_COPY.contains(&name) {
                    request.headers.remove(name);
                }
            }
            edits
                .iter()
                .try_for_each(|edit| edit.apply(&mut request.headers))?;
            ctx.response_edits.extend(response);
            Some(Judged::Pass)
        }
        Verdict::Denied {
            status,
            headers: edits,
            body,
        } => {
            let mut headers = HeaderMap::new();
            for edit in checked(edits)? {
                edit.apply(&mut headers)?;
            }
            Some(Judged::Deny(Box::new(Reply {
                reason: Reason::AuthorizationDenied,
                status: StatusCode::from_u16(status).ok()?,
                headers,
                body: Bytes::from(body),
            })))
        }
    }
}

/// The changes that may be made; nothing when one is no legal field, because then none can be
/// believed.
fn checked(edits: Vec<FieldEdit>) -> Option<Vec<Edit>> {
    let mut checked = Vec::with_capacity(edits.len());
    for edit in edits {
        let name = HeaderName::from_bytes(edit.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(&edit.value).ok()?;
        let is_framing = NOT_TO_COPY.contains(&name) && name != header::CONTENT_TYPE;
        if !is_framing {
            checked.push(Edit::new(name, value, edit.action));
        }
    }
    Some(checked)
}
