//! Who may ask for what, and in which way.
//!
//! Called by `connection.rs` for each request. The token is asked for before anything about a path
//! is told, compared in constant time, and never written anywhere. What changes something is refused
//! unless the settings allow it, and unless the request looks like one that a program sent on purpose
//! rather than a page in somebody's browser.

use std::net::IpAddr;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use ir::SecretText;
use subtle::ConstantTimeEq as _;

use super::answer::{Answer, AnswerBody};
use super::endpoint::{self, Access, Change, Endpoint, Found, Read};
use super::query::Query;
use super::{Context, openapi};
use crate::bootstrap::AdminLimits;

/// The paths and who may use them.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) context: Context,
    /// What callers must show; `None` lets everyone in.
    pub(super) token: Option<SecretText>,
    pub(super) limits: AdminLimits,
}

impl Api {
    /// Answers one request and counts it.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let (head, body) = request.into_parts();
        let found = Found::at(head.uri.path());
        let label = found.as_ref().map_or("unknown", |it| it.endpoint.path);
        let is_open = |it: &Found| it.endpoint.access == Access::Open;
        let answer = if found.as_ref().is_some_and(is_open) || self.is_allowed(&head.headers) {
            match found {
                Some(found) => self.dispatch(&found, &head, body).await,
                None => Answer::not_found("no such path; /openapi.json lists all paths"),
            }
        } else {
            let message = "send `Authorization: Bearer` with the token of adminAuth";
            Answer::error(StatusCode::UNAUTHORIZED, message)
        };
        let status = answer.status.as_u16();
        let counts = &self.context.state.metrics.admin;
        counts.observe(head.method.as_str(), label, status);
        answer.into_response()
    }

    async fn dispatch(&self, found: &Found, head: &Parts, body: Incoming) -> Answer {
        let endpoint = found.endpoint;
        match &head.method {
            &Method::GET | &Method::HEAD => self.read(found, head).await,
            &Method::OPTIONS => Answer::methods(endpoint.allow()),
            method => match endpoint.change.filter(|it| it.method == method.as_str()) {
                Some(change) => self.change(endpoint, change, head, body).await,
                None => Answer::method_not_allowed(endpoint.allow()),
            },
        }
    }

    async fn read(&self, found: &Found, head: &Parts) -> Answer {
        let context = &self.context;
        let query = head.uri.query();
        let request = endpoint::Request {
            query,
            headers: &head.headers,
        };
        match found.endpoint.read {
            Read::Document => openapi::answer(),
            Read::Plain(answer) => answer(context),
            Read::Named(answer) => answer(context, &found.names),
            Read::Asked(answer) => answer(context, &Query::of(query)),
            Read::Watched(answer) => answer(context, &request),
            Read::Later(answer) => answer(context, request).await,
            Read::Listed(answer) => match Found::filter(query) {
                Ok(filter) => answer(context, &filter),
                Err(message) => Answer::error(StatusCode::BAD_REQUEST, &message),
            },
        }
    }

    async fn change(
        &self,
        endpoint: &Endpoint,
        change: Change,
        head: &Parts,
        body: Incoming,
    ) -> Answer {
        if !self.context.changes {
            let message = format!(
                "this admin API only reads, {} {} is refused; set adminReadOnly to false in the \
                 bootstrap file to allow changes",
                change.method, endpoint.path
            );
            return Answer::error(StatusCode::FORBIDDEN, &message);
        }
        if self.token.is_none() && !is_for_an_address(&head.headers) {
            let message = "without a token, changes are taken only at an IP address or localhost, \
                           so that no page in a browser can send them; set adminAuth";
            return Answer::error(StatusCode::FORBIDDEN, message);
        }
        if !change.takes.contains(&content_type(&head.headers)) {
            let message = format!("send `Content-Type: {}`", change.takes.join("` or `"));
            return Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message);
        }
        match read_whole(body, &self.limits).await {
            Ok(body) => (change.run)(&self.context, &body),
            Err(refusal) => refusal,
        }
    }

    fn is_allowed(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let shown = headers.get(header::AUTHORIZATION);
        shown.is_some_and(|value| shows(value.as_bytes(), token))
    }
}

/// The body of a request, bounded in size and time.
async fn read_whole(body: Incoming, limits: &AdminLimits) -> Result<Bytes, Answer> {
    let bytes_max = limits.body_bytes_max;
    let body = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(limits.request_time, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {bytes_max} bytes, send less");
            Err(Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &message))
        }
        Ok(Err(_)) => {
            let message = "the body broke off, send it again";
            Err(Answer::error(StatusCode::BAD_REQUEST, message))
        }
        Err(_) => {
            let message = "the body did not come in time, send it again";
            Err(Answer::error(StatusCode::REQUEST_TIMEOUT, message))
        }
    }
}

/// The media type of a body, without its parameters.
fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

/// A name in `Host` may be one that a page made point here (DNS rebinding); an address may not.
fn is_for_an_address(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST);
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = without_port.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Whether the value of `Authorization` carries the token (RFC 6750 section 2.1; the scheme's case
/// does not matter, RFC 9110 section 11.1).
fn shows(value: &[u8], token: &SecretText) -> bool {
    let Some((scheme, shown)) = value.split_at_checked("Bearer ".len()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"Bearer ")
        && bool::from(shown.trim_ascii().ct_eq(token.expose().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_let_in() {
        let token = SecretText::new("open-sesame".to_owned());
        for (value, is_let_in) in [
            ("Bearer open-sesame", true),
            ("bearer  open-sesame", true),
            ("Bearer open-sesam", false),
            ("Bearer open-sesame2", false),
            ("Bearer ", false),
            ("Basic open-sesame", false),
            ("open-sesame", false),
            ("", false),
        ] {
            assert_eq!(shows(value.as_bytes(), &token), is_let_in, "{value}");
        }
    }

    #[test]
    fn names_that_a_page_could_point_here_are_told_from_addresses() {
        for (host, is_one) in [
            ("127.0.0.1:19080", true),
            ("127.0.0.1", true),
            ("[::1]:19080", true),
            ("[::1]", true),
            ("localhost:19080", true),
            ("LOCALHOST", true),
            ("evil.example:19080", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(is_for_an_address(&headers), is_one, "{host}");
        }
        assert!(!is_for_an_address(&HeaderMap::new()));
    }
}
