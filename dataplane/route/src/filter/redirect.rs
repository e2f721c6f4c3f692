//! The answer that sends a client elsewhere (Gateway API `HTTPRequestRedirectFilter`).
//!
//! Gives the status and the `Location`; what is not configured is taken from the request. The port
//! follows Gateway API: the configured one, else the well-known one of the configured scheme, else
//! the listener's; and it is not written when it is the scheme's own.

use http::header::InvalidHeaderValue;
use http::{HeaderValue, StatusCode};
use ir::filter::Scheme;

use super::FilterError;
use super::rewrite::{PathEdit, checked_host};

/// A compiled `RequestRedirect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathEdit>,
    status: StatusCode,
}

/// What a redirect takes from the request it answers.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Scheme that the client spoke.
    pub scheme: Scheme,
    /// Host without port; empty when the request names none.
    pub host: &'a str,
    /// Port that the client came to: the listener's, as the Gateway has it, or a proxy's in front.
    pub listener_port: u16,
    /// Path.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// That of [`crate::table::Found`].
    pub prefix_len: Option<usize>,
}

impl Redirect {
    /// Checks host and status and prepares the path.
    pub fn compile(redirect: &ir::filter::Redirect) -> Result<Self, FilterError> {
        if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
            return Err(FilterError::Status(redirect.status));
        }
        if let Some(name) = &redirect.hostname {
            checked_host(name)?;
        }
        Ok(Self {
            scheme: redirect.scheme,
            host: redirect.hostname.as_deref().map(Into::into),
            port: redirect.port,
            path: redirect.path.as_ref().map(PathEdit::compile),
            status: StatusCode::from_u16(redirect.status)
                .map_err(|_| FilterError::Status(redirect.status))?,
        })
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The `Location` of the answer; fails only when the request's path holds what no header may.
    ///
    /// Where neither filter nor request names a host, it is a path on the same server.
    pub fn location(&self, origin: &Origin<'_>) -> Result<HeaderValue, InvalidHeaderValue> {
        let mut location = String::with_capacity(origin.path.len() + 64);
        let host = self.host.as_deref().unwrap_or(origin.host);
        if host.is_empty() {
            // RFC 3986 4.2: what begins with // would name a host.
            location.push_str("/.");
        } else {
            let scheme = self.scheme.unwrap_or(origin.scheme);
            location.push_str(match scheme {
                Scheme::Http => "http://",
                Scheme::Https => "https://",
            });
            location.push_str(host);
            let port = self
                .port
                .or_else(|| self.scheme.map(well_known_port))
                .unwrap_or(origin.listener_port);
            if port != well_known_port(scheme) {
                location.push(':');
                location.push_str(&port.to_string());
            }
        }
        let edited = self
            .path
            .as_ref()
            .and_then(|edit| edit.apply(origin.path, origin.prefix_len));
        let path = edited.as_deref().unwrap_or(origin.path);
        if !path.starts_with('/') {
            location.push('/');
        }
        location.push_str(path);
        if let Some(query) = origin.query {
            location.push('?');
            location.push_str(query);
        }
        HeaderValue::try_from(location)
    }
}

fn well_known_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: ir::filter::Redirect = ir::filter::Redirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: 302,
    };

    const ORIGIN: Origin<'static> = Origin {
        scheme: Scheme::Http,
        host: "a.example.com",
        listener_port: 80,
        path: "/foo/bar",
        query: None,
        prefix_len: Some(4),
    };

    fn location(redirect: &ir::filter::Redirect, origin: &Origin<'_>) -> String {
        let redirect = Redirect::compile(redirect).unwrap();
        let value = redirect.location(origin).unwrap();
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_port_follows_scheme_and_listener() {
        use Scheme::{Http, Https};
        for (listener, listener_port, scheme, port, expected) in [
            (Http, 80, None, None, "http://a.example.com/foo/bar"),
            (Http, 8080, None, None, "http://a.example.com:8080/foo/bar"),
            (Http, 8080, None, Some(80), "http://a.example.com/foo/bar"),
            (
                Http,
                80,
                None,
                Some(8083),
                "http://a.example.com:8083/foo/bar",
            ),
            (Http, 80, Some(Https), None, "https://a.example.com/foo/bar"),
            (
                Http,
                8080,
                Some(Https),
                None,
                "https://a.example.com/foo/bar",
            ),
            (
                Http,
                80,
                Some(Https),
                Some(443),
                "https://a.example.com/foo/bar",
            ),
            (
                Http,
                80,
                Some(Https),
                Some(8443),
                "https://a.example.com:8443/foo/bar",
            ),
            (
                Http,
                80,
                Some(Https),
                Some(80),
                "https://a.example.com:80/foo/bar",
            ),
            (Http, 8080, Some(Http), None, "http://a.example.com/foo/bar"),
            (Https, 443, None, None, "https://a.example.com/foo/bar"),
            (
                Https,
                8443,
                None,
                None,
                "https://a.example.com:8443/foo/bar",
            ),
            (Https, 443, Some(Http), None, "http://a.example.com/foo/bar"),
            (
                Https,
                443,
                Some(Http),
                Some(443),
                "http://a.example.com:443/foo/bar",
            ),
            (
                Https,
                443,
                None,
                Some(80),
                "https://a.example.com:80/foo/bar",
            ),
        ] {
            let redirect = ir::filter::Redirect {
                scheme,
                port,
                ..EMPTY
            };
            let origin = Origin {
                scheme: listener,
                listener_port,
                ..ORIGIN
            };
            assert_eq!(location(&redirect, &origin), expected);
        }
    }

    #[test]
    fn host_and_path_are_replaced_and_the_query_is_kept() {
        use ir::filter::PathEdit::{Full, Prefix};
        for (hostname, path, query, expected) in [
            (None, None, None, "http://a.example.com/foo/bar"),
            (None, None, Some("x=1"), "http://a.example.com/foo/bar?x=1"),
            (
                Some("example.org"),
                None,
                None,
                "http://example.org/foo/bar",
            ),
            (
                Some("example.org"),
                Some(Prefix("/xyz".into())),
                Some("x=1"),
                "http://example.org/xyz/bar?x=1",
            ),
            (None, Some(Full("/".into())), None, "http://a.example.com/"),
            (
                None,
                Some(Full("/full".into())),
                Some("x"),
                "http://a.example.com/full?x",
            ),
        ] {
            let redirect = ir::filter::Redirect {
                hostname: hostname.map(str::to_owned),
                path,
                ..EMPTY
            };
            let origin = Origin { query, ..ORIGIN };
            assert_eq!(location(&redirect, &origin), expected);
        }
    }

    #[test]
    fn without_any_host_the_answer_stays_on_the_same_server() {
        let origin = |path| Origin {
            host: "",
            path,
            prefix_len: None,
            ..ORIGIN
        };
        assert_eq!(location(&EMPTY, &origin("/foo")), "/./foo");
        assert_eq!(location(&EMPTY, &origin("//evil.com")), "/.//evil.com");
        assert_eq!(location(&EMPTY, &origin("*")), "/./*");
    }

    #[test]
    fn a_path_that_no_header_may_hold_gives_no_location() {
        let redirect = Redirect::compile(&EMPTY).unwrap();
        let path = "/a\r\nb";
        assert!(redirect.location(&Origin { path, ..ORIGIN }).is_err());
    }

    #[test]
    fn only_redirecting_statuses_and_host_names_are_taken() {
        for (status, is_taken) in [
            (301, true),
            (302, true),
            (303, true),
            (307, true),
            (308, true),
            (200, false),
            (304, false),
            (0, false),
        ] {
            let redirect = ir::filter::Redirect { status, ..EMPTY };
            match Redirect::compile(&redirect) {
                Ok(redirect) => assert!(is_taken && redirect.status().as_u16() == status),
                Err(error) => assert!(!is_taken && error == FilterError::Status(status)),
            }
        }
        let redirect = ir::filter::Redirect {
            hostname: Some("a b".into()),
            ..EMPTY
        };
        let error = FilterError::Hostname("a b".into());
        assert_eq!(Redirect::compile(&redirect), Err(error));
    }
}
