//! What a call to an AI service is, whose budget it takes from, and what it is answered when it fails.
//!
//! The line of such a call is `proxy::ai`, which gathers its body, asks providers and streams; here is
//! what is computed on the way. Formats and budgets themselves are those of `dataplane-ai`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use dataplane_ai::call::{Call, Operation};
use dataplane_ai::claim::claim;
use dataplane_ai::failure::{ClientFormat, Failure, FailureReason};
use dataplane_ai::left_behind::NAME_BYTES_MAX;
use dataplane_ai::token_policy::{Standing, retry_after_seconds};
use dataplane_config::{Budget, client_of};
use dataplane_telemetry::Reason;
use ir::ai::TokenScope;

use crate::context::Context;
use crate::message::Request;
use crate::reply::Reply;

/// Members of the client's request that the provider has no word for.
const IGNORED: HeaderName = HeaderName::from_static("x-nantian-ignored-members");

/// Fields that tell of the client and the way here, which are nobody else's business.
const OWN_FIELDS: [HeaderName; 11] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-client-cert"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("client-cert"),
    header::FORWARDED,
    header::VIA,
    header::REFERER,
    header::PROXY_AUTHORIZATION,
];

/// Fields of a provider's answer that are about its own bytes or its own clients.
const NOT_TO_PASS: [HeaderName; 6] = [
    header::LOCATION,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::SET_COOKIE,
    header::ALT_SVC,
    header::STRICT_TRANSPORT_SECURITY,
];

/// An answer of ours in the client's format.
pub(crate) fn refusal(failure: &Failure, format: ClientFormat, reason: Reason) -> Reply {
    let mut headers = HeaderMap::with_capacity(8);
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    if let Some(time) = failure.retry_after {
        headers.insert(header::RETRY_AFTER, retry_after(time));
    }
    Reply {
        reason,
        status: failure.status_for(format),
        headers,
        body: failure.body(format),
    }
}

/// The outcome that stands in logs for a failure of the gateway's own making.
pub(crate) fn reason_of(failure: &Failure) -> Reason {
    match failure.reason {
        FailureReason::InvalidRequest | FailureReason::Unsupported | FailureReason::Blocked => {
            Reason::BadRequest
        }
        FailureReason::NotFound => Reason::RouteNotFound,
        FailureReason::TooLarge => Reason::BodyTooLarge,
        FailureReason::RateLimited => Reason::RateLimited,
        // What a provider says of itself is its answer.
        FailureReason::Provider | FailureReason::Credentials => Reason::Ok,
        FailureReason::BadAnswer => Reason::UpstreamProtocol,
        FailureReason::StreamBroken => Reason::UpstreamReset,
        FailureReason::Unreachable => Reason::ConnectFailed,
        FailureReason::Timeout => Reason::UpstreamTimeout,
    }
}

/// Nothing of that kind is served, or not by that method.
pub(crate) fn not_served(path: &str) -> Reply {
    // Cut, because it is the client's and comes back.
    let shown: String = path.chars().take(128).collect();
    let asked_by = |method| Some((Operation::of(&method, path)?.client(), method));
    let Some((format, method)) = [Method::POST, Method::GET].into_iter().find_map(asked_by) else {
        let message = format!("there is no {shown} here, use /v1/chat/completions or /v1/messages");
        let failure = Failure::new(FailureReason::NotFound, StatusCode::NOT_FOUND, message);
        let failure = failure.coded("unknown_url");
        return refusal(&failure, ClientFormat::OpenAi, Reason::RouteNotFound);
    };
    let message = format!("{shown} is asked by {method} only");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let failure = Failure::new(FailureReason::NotFound, status, message);
    let failure = failure.coded("method_not_allowed");
    let mut reply = refusal(&failure, format, Reason::RouteNotFound);
    if let Ok(method) = HeaderValue::from_str(method.as_str()) {
        reply.headers.insert(header::ALLOW, method);
    }
    reply
}

/// The configuration of the service is broken; it says more in the process's own log.
pub(crate) fn unusable() -> Failure {
    let message = "the gateway's configuration of this service cannot be used";
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Failure::new(FailureReason::Unreachable, status, message).coded("service_unusable")
}

/// A breaker is open.
pub(crate) fn circuit_open(message: &str, wait: Duration) -> Failure {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut failure = Failure::new(FailureReason::Unreachable, status, message);
    failure.retry_after = Some(wait);
    failure.coded("circuit_open")
}

/// A refusal of the gateway's that was made before anybody knew that this is a call, in the client's
/// format where the rule leads to an AI service.
pub(crate) fn in_format(ctx: &Context<'_>, request: &Request, mut reply: Reply) -> Reply {
    let is_plain = reply
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "text/plain");
    let is_ours = !matches!(
        reply.reason,
        Reason::DirectResponse | Reason::AuthorizationDenied | Reason::CorsPreflight
    );
    let is_refusal = reply.status.is_client_error() || reply.status.is_server_error();
    if !(is_plain && is_ours && is_refusal && leads_to_ai(ctx)) {
        return reply;
    }
    let operation = Operation::of(&request.method, request.target.path());
    let format = operation.map_or(ClientFormat::OpenAi, Operation::client);
    let text = String::from_utf8_lossy(&reply.body);
    let message = text.split(" (").next().unwrap_or_default();
    // Whose doing it is stands in the code; the status says what it means.
    let failure = Failure::new(FailureReason::InvalidRequest, reply.status, message);
    let failure = failure.coded(reply.reason.as_str());
    reply.status = failure.status_for(format);
    reply.body = failure.body(format);
    let json = HeaderValue::from_static("application/json");
    reply.headers.insert(header::CONTENT_TYPE, json);
    reply
}

/// Whether what was chosen is an AI service, or any backend of the rule where nothing was chosen yet.
fn leads_to_ai(ctx: &Context<'_>) -> bool {
    if ctx.config.ai_services.is_empty() {
        return false;
    }
    match (ctx.cluster, ctx.rule) {
        (Some(cluster), _) => cluster.ai.is_some(),
        (None, Some(rule)) => rule.backends.iter().any(|backend| {
            let cluster = ctx.config.cluster(backend);
            cluster.is_some_and(|cluster| cluster.ai.is_some())
        }),
        (None, None) => false,
    }
}

/// The body is larger than what is gathered.
pub(crate) fn too_large(bytes_max: usize) -> Failure {
    let message = format!("the request is larger than {bytes_max} bytes");
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    Failure::new(FailureReason::TooLarge, status, message).coded("request_too_large")
}

/// The caller's budget is used up.
pub(crate) fn over_budget(wait: Duration) -> Failure {
    let seconds = retry_after_seconds(wait);
    let message = format!("the limit of tokens or requests is reached, try again in {seconds} s");
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut failure = Failure::new(FailureReason::RateLimited, status, message);
    failure.retry_after = Some(wait);
    failure.coded("rate_limit_exceeded")
}

/// The account that a call is charged to.
pub(crate) fn account(
    budget: &Budget,
    ctx: &Context<'_>,
    request: &Request,
    call: &Call,
    model: &str,
) -> u64 {
    let field = |name: &str| request.headers.get(name).map(HeaderValue::as_bytes);
    match budget.scope() {
        TokenScope::Global => budget.key(None),
        TokenScope::Route => budget.key(ctx.rule.map(|rule| rule.route.as_bytes())),
        TokenScope::ApiKey => {
            let names = ["authorization", "x-api-key", "api-key"];
            budget.key(names.into_iter().find_map(field))
        }
        TokenScope::Model => budget.key(Some(model.as_bytes())),
        TokenScope::User => budget.key(call.user().as_deref().map(str::as_bytes)),
        TokenScope::SourceIp => {
            let (bytes, length) = client_of(ctx.client);
            budget.key(bytes.get(..length))
        }
        TokenScope::Header(name) => budget.key(field(name)),
        TokenScope::JwtClaim(name) => {
            let token = field("authorization").and_then(|value| std::str::from_utf8(value).ok());
            let token = token.and_then(|value| value.split_once(' '));
            let value = token.and_then(|(_, token)| claim(token.trim(), name));
            budget.key(value.as_deref().map(str::as_bytes))
        }
    }
}

/// Tells where a caller stands with its budget.
pub(crate) fn stamp(standing: &Standing, headers: &mut HeaderMap) {
    for (name, value) in standing.headers() {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Tells which members of its request were left behind.
pub(crate) fn stamp_ignored(left_behind: &[String], most: usize, headers: &mut HeaderMap) {
    let is_told = |name: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b',';
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
    };
    let names = left_behind.iter().map(String::as_str);
    let names: Vec<&str> = names.filter(is_told).take(most).collect();
    if names.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(names.join(", ")) {
        headers.insert(IGNORED, value);
    }
}

/// The client's fields as far as a provider may see them.
pub(crate) fn fields_to_send(request: &Request) -> HeaderMap {
    let mut fields = request.headers.clone();
    for name in &OWN_FIELDS {
        fields.remove(name);
    }
    fields
}

/// A provider's fields as far as a client of the same dialect may see them.
pub(crate) fn fields_to_pass(provider: &HeaderMap) -> HeaderMap {
    let mut fields = provider.clone();
    for name in &NOT_TO_PASS {
        fields.remove(name);
    }
    fields
}

/// The list of models.
pub(crate) fn models(list: String) -> Reply {
    let mut headers = HeaderMap::with_capacity(4);
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    Reply {
        reason: Reason::DirectResponse,
        status: StatusCode::OK,
        headers,
        body: Bytes::from(list),
    }
}

fn retry_after(time: Duration) -> HeaderValue {
    HeaderValue::from(retry_after_seconds(time))
}

#[cfg(test)]
mod tests {
    use dataplane_ai::left_behind::LeftBehind;

    use super::*;

    #[test]
    fn what_is_noted_is_told_however_long_its_name_is() {
        for length in [1, 50, 64, 65, 66, 80, 81, 5000] {
            let mut left = LeftBehind::default();
            left.note_in("messages[]", &"x".repeat(length));
            let names = left.into_names();
            let mut headers = HeaderMap::new();
            stamp_ignored(&names, 32, &mut headers);
            let field = headers.get(IGNORED).map(|it| it.to_str().unwrap());
            assert_eq!(field, Some(&*names[0]), "{length}");
        }
    }

    #[test]
    fn what_was_left_behind_is_told_in_a_field_of_bounded_length() {
        let numbered = |count: usize| (0..count).map(|at| format!("m{at}")).collect::<Vec<_>>();
        let long = "x".repeat(NAME_BYTES_MAX);
        for (names, told) in [
            (vec![], None),
            (
                vec!["a".to_owned(), "b".to_owned()],
                Some("a, b".to_owned()),
            ),
            (numbered(1000), Some(numbered(32).join(", "))),
            (vec![long.clone()], Some(long.clone())),
            (vec![long + "x", "b".to_owned()], Some("b".to_owned())),
            // Neither another member nor another field.
            (vec!["a, b".to_owned(), "c\r\nd: e".to_owned()], None),
            (vec![String::new(), "n\u{e9}".to_owned()], None),
        ] {
            let mut headers = HeaderMap::new();
            stamp_ignored(&names, 32, &mut headers);
            let field = headers.get(IGNORED).map(|it| it.to_str().unwrap());
            assert_eq!(field, told.as_deref(), "{names:?}");
        }
    }
}
