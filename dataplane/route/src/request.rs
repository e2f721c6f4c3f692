//! The parts of a request that routing reads.
//!
//! The HTTP engine fills this in from a parsed and normalised head; nothing here parses a message.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

/// What routes are matched against.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Host in lower case, without port or trailing dot; empty when the request names none.
    pub host: &'a str,
    /// Path without query, normalised. One that does not start with `/` (such as `*`) meets only
    /// matches that every path meets, and regular expressions.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Method.
    pub method: &'a Method,
    /// Header fields.
    pub headers: &'a HeaderMap,
}

impl Request<'_> {
    /// True for a gRPC call: POST with content type `application/grpc`, a variant of it such as
    /// `application/grpc+proto`, or gRPC-Web (`application/grpc-web`).
    pub fn is_grpc(&self) -> bool {
        const TYPE: &[u8] = b"application/grpc";
        let Some(value) = self.headers.get(CONTENT_TYPE) else {
            return false;
        };
        self.method == Method::POST
            && value
                .as_bytes()
                .split_at_checked(TYPE.len())
                .is_some_and(|(start, rest)| {
                    start.eq_ignore_ascii_case(TYPE)
                        && !rest.first().is_some_and(u8::is_ascii_alphanumeric)
                })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_method_and_content_type() {
        for (method, content_type, expected) in [
            (Method::POST, Some("application/grpc"), true),
            (Method::POST, Some("application/grpc+proto"), true),
            (Method::POST, Some("Application/gRPC; charset=utf-8"), true),
            (Method::POST, Some("application/grpc-web+proto"), true),
            (Method::POST, Some("application/grpcx"), false),
            (Method::POST, Some("application/json"), false),
            (Method::POST, Some(""), false),
            (Method::POST, None, false),
            (Method::GET, Some("application/grpc"), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = content_type {
                headers.insert(CONTENT_TYPE, value.parse().unwrap());
            }
            let request = Request {
                host: "",
                path: "/",
                query: None,
                method: &method,
                headers: &headers,
            };
            assert_eq!(request.is_grpc(), expected, "{method} {content_type:?}");
        }
    }
}
