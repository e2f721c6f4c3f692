//! Answers of our own: a reason becomes a status, or a gRPC status, and a short body.
//!
//! All errors a client sees are made here, so that they look the same everywhere. The body names
//! the stable reason that the access log and the metrics use too, and nothing about the inside.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use dataplane_telemetry::Reason;

use crate::h1::BodyLength;
use crate::message::Response;

/// An answer that no backend gave.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) reason: Reason,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The usual answer for a reason.
    pub(crate) fn new(reason: Reason) -> Self {
        Self::with_detail(reason, status_of(reason), text_of(reason))
    }

    /// An answer that says more than the reason alone.
    pub(crate) fn with_detail(reason: Reason, status: StatusCode, detail: &str) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let body = Bytes::from(format!("{detail} ({reason})\n"));
        Self {
            reason,
            status,
            headers,
            body,
        }
    }

    /// The same answer with the time after which to come again, in whole seconds and at least one.
    pub(crate) fn retry_after(mut self, time: Duration) -> Self {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        self.headers
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        self
    }

    /// The same answer; when it is for an overload, with the time after which to come again.
    pub(crate) fn after_overload(self, time: Duration) -> Self {
        match self.reason {
            Reason::Overload | Reason::BackendOverload => self.retry_after(time),
            _ => self,
        }
    }

    /// An answer without a body.
    pub(crate) fn empty(reason: Reason, status: StatusCode, headers: HeaderMap) -> Self {
        Self {
            reason,
            status,
            headers,
            body: Bytes::new(),
        }
    }

    /// The same answer as a gRPC client understands it: 200 and the status in the trailers, which
    /// without a body are the header fields (gRPC over HTTP/2, Trailers-Only).
    pub(crate) fn into_grpc(mut self) -> Self {
        if self.status.is_redirection() {
            return self;
        }
        let detail = String::from_utf8_lossy(&self.body).trim_end().to_owned();
        self.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        self.headers.insert(
            "grpc-status",
            HeaderValue::from(match self.status {
                StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
                _ => grpc_status_of(self.reason),
            }),
        );
        if let Ok(message) = HeaderValue::from_str(&detail) {
            self.headers.insert("grpc-message", message);
        }
        self.status = StatusCode::OK;
        self.body = Bytes::new();
        self
    }

    /// The head of this answer, and its body.
    pub(crate) fn into_parts(self, is_head_request: bool) -> (Response, Bytes) {
        let mut body = self.body;
        let length = body.len() as u64;
        let mut headers = self.headers;
        // RFC 9110 8.6 and 15.4.5: they have no body, and say nothing of its length.
        let bodyless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        let is_bodyless = bodyless.contains(&self.status);
        let declared = if is_bodyless {
            body = Bytes::new();
            BodyLength::None
        } else {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            BodyLength::Length(length)
        };
        let framing = match is_head_request {
            true => BodyLength::None,
            false => declared,
        };
        let response = Response {
            status: self.status,
            headers,
            body: framing,
            declared,
        };
        (response, body)
    }
}

/// The status a client gets for a reason.
pub(crate) fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::Ok | Reason::DirectResponse | Reason::PluginReply => StatusCode::OK,
        Reason::CorsPreflight => StatusCode::NO_CONTENT,
        Reason::AuthorizationDenied | Reason::AddressDenied => StatusCode::FORBIDDEN,
        Reason::AuthorizationFailed => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Redirected => StatusCode::FOUND,
        Reason::RouteNotFound => StatusCode::NOT_FOUND,
        Reason::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
        Reason::BadRequest | Reason::UpgradeRefused | Reason::ClientAborted => {
            StatusCode::BAD_REQUEST
        }
        Reason::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Reason::UriTooLong => StatusCode::URI_TOO_LONG,
        Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::HeadTimeout | Reason::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        // Outcomes of streams and handshakes; no request ends with them.
        Reason::IdleTimeout
        | Reason::AgeLimit
        | Reason::UnknownServerName
        | Reason::BadClientHello
        | Reason::DownstreamTls
        | Reason::ClientCertificate
        | Reason::HandshakeTimeout => StatusCode::BAD_REQUEST,
        Reason::NoEndpoint
        | Reason::CircuitOpen
        | Reason::BackendOverload
        | Reason::Overload
        | Reason::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Reason::ConnectFailed
        | Reason::UpstreamTls
        | Reason::UpstreamCertificate
        | Reason::UpstreamReset
        | Reason::UpstreamProtocol => StatusCode::BAD_GATEWAY,
        Reason::ConnectTimeout | Reason::UpstreamTimeout | Reason::RequestTimeout => {
            StatusCode::GATEWAY_TIMEOUT
        }
        Reason::InvalidBackend
        | Reason::UnsupportedFilter
        | Reason::PluginFailed
        | Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The gRPC status code for a caller who is not known.
const UNAUTHENTICATED: u16 = 16;

/// gRPC status codes as the gRPC specification maps them from HTTP, sharper where we know more.
fn grpc_status_of(reason: Reason) -> u16 {
    const DEADLINE_EXCEEDED: u16 = 4;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    match reason {
        Reason::RouteNotFound => UNIMPLEMENTED,
        Reason::AuthorizationDenied | Reason::AddressDenied => PERMISSION_DENIED,
        Reason::RequestTimeout | Reason::UpstreamTimeout => DEADLINE_EXCEEDED,
        Reason::RateLimited | Reason::BodyTooLarge | Reason::HeadTooLarge => RESOURCE_EXHAUSTED,
        _ if status_of(reason).is_server_error()
            && status_of(reason) != StatusCode::INTERNAL_SERVER_ERROR =>
        {
            UNAVAILABLE
        }
        _ => INTERNAL,
    }
}

fn text_of(reason: Reason) -> &'static str {
    match reason {
        Reason::RouteNotFound => "no route matches this request",
        Reason::MisdirectedRequest => "this host is not served on this connection",
        Reason::NoEndpoint => "no endpoint is available",
        Reason::ConnectFailed => "no connection to the backend",
        Reason::ConnectTimeout => "the backend did not accept a connection in time",
        Reason::UpstreamTls => "no TLS connection to the backend",
        Reason::UpstreamCertificate => "the backend's certificate is not trusted",
        Reason::UpstreamReset => "the backend closed the connection",
        Reason::UpstreamProtocol => "the backend's answer is not valid",
        Reason::UpstreamTimeout => "the backend did not answer in time",
        Reason::RequestTimeout => "the request took too long",
        Reason::BodyTimeout => "the request body did not arrive in time",
        Reason::HeadTimeout => "the request head did not arrive in time",
        Reason::BodyTooLarge => "the request body is too large",
        Reason::HeadTooLarge => "the request head is too large",
        Reason::InvalidBackend => "the route's backend is not valid",
        Reason::UnsupportedFilter => "the route has a filter that is not supported",
        Reason::PluginFailed => "a plugin could not serve the request",
        Reason::AuthorizationFailed => "the authorization service gave no answer",
        Reason::Overload => "the gateway is overloaded",
        Reason::CircuitOpen => "the backend keeps failing and is given a rest",
        Reason::RateLimited => "too many requests, come again later",
        Reason::BackendOverload => "the backend has as many requests as it may have",
        _ => "the request cannot be served",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_where_it_ends_and_sends_no_more() {
        use BodyLength::{Length, None as Nothing};
        // Status, whether it answers a HEAD, what follows, and what is said of it.
        for (status, is_head, body, declared) in [
            (200, false, Length(4), Length(4)),
            (200, true, Nothing, Length(4)),
            (503, false, Length(4), Length(4)),
            (204, false, Nothing, Nothing),
            (304, false, Nothing, Nothing),
            (304, true, Nothing, Nothing),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let reply = Reply {
                body: Bytes::from_static(b"body"),
                ..Reply::empty(Reason::DirectResponse, status, HeaderMap::new())
            };
            let (response, bytes) = reply.into_parts(is_head);
            assert_eq!((response.body, response.declared), (body, declared));
            let length = response.headers.get(header::CONTENT_LENGTH);
            assert_eq!(length.is_some(), declared != Nothing, "{status}");
            assert_eq!(bytes.is_empty(), declared == Nothing, "{status}");
        }
    }

    #[test]
    fn clients_of_an_overload_are_told_when_to_come_again() {
        let told = |reason, ms| {
            let reply = Reply::new(reason).after_overload(Duration::from_millis(ms));
            let value = reply.headers.get(header::RETRY_AFTER)?;
            Some(value.to_str().unwrap().to_owned())
        };
        assert_eq!(told(Reason::Overload, 1000).as_deref(), Some("1"));
        assert_eq!(told(Reason::BackendOverload, 1001).as_deref(), Some("2"));
        assert_eq!(told(Reason::Overload, 0).as_deref(), Some("1"));
        assert_eq!(told(Reason::NoEndpoint, 1000), None);
    }
}
