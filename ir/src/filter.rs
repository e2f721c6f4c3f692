//! The Gateway API filters: changes a route makes to a message.
//!
//! On the wire a filter is a type name and a `google.protobuf.Struct`; here it is typed, so that
//! engines match on variants and never look up keys. Pure application is `dataplane/route/filter`.

use std::sync::Arc;

use crate::backend::BackendTarget;

/// Key in a filter's settings: the control plane's word that it cannot be applied, and why.
///
/// An addition to the contract; with it a filter of any type becomes [`Filter::Unsupported`].
pub const UNSUPPORTED_KEY: &str = "nantian.dev/unsupported";

/// One filter of a rule or a backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Changes header fields of the request.
    RequestHeaders(HeaderEdit),
    /// Changes header fields of the response.
    ResponseHeaders(HeaderEdit),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Changes host or path on the way to the backend.
    Rewrite(Rewrite),
    /// Sends a copy of the request elsewhere and ignores the answer.
    Mirror(Mirror),
    /// Cross-origin resource sharing.
    Cors(Cors),
    /// Asks another service whether the request may pass.
    ExternalAuth(ExternalAuth),
    /// Answers from the configuration.
    DirectResponse(DirectResponse),
    /// A filter this data plane cannot apply; its share of requests is answered with 500.
    ///
    /// Gateway API: a filter that cannot be applied must not be skipped.
    Unsupported {
        /// The type as written.
        name: String,
        /// Why it cannot be applied.
        reason: String,
    },
}

/// Changes to header fields, applied as remove, set, add; names in lower case, values checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdit {
    /// Replace all values of a field.
    pub set: Vec<(String, String)>,
    /// Append a value.
    pub add: Vec<(String, String)>,
    /// Take a field out.
    pub remove: Vec<String>,
}

/// An answer that sends the client elsewhere; what is absent is taken from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Scheme>,
    /// Host name without port.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathEdit>,
    /// Port; absent follows Gateway API's rule for the scheme.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// URI scheme of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Port 80.
    Http,
    /// Port 443.
    Https,
}

/// New host or path towards the backend; at least one is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// New `Host`.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathEdit>,
}

/// How a path changes; the query is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    /// The whole path is replaced.
    Full(String),
    /// The matched prefix is replaced.
    Prefix(String),
}

/// A copy of requests to another backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where the copy goes.
    pub backend: BackendTarget,
    /// Which share of requests is copied, as numerator and non-zero denominator.
    pub fraction: (u32, u32),
}

/// Cross-origin resource sharing (Gateway API `HTTPCORSFilter`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins such as `https://*.example.com`, or `*`.
    pub allow_origins: Vec<String>,
    /// Methods, or `*`.
    pub allow_methods: Vec<String>,
    /// Header fields, or `*`.
    pub allow_headers: Vec<String>,
    /// Header fields scripts may read.
    pub expose_headers: Vec<String>,
    /// Cookies and credentials are allowed.
    pub allow_credentials: bool,
    /// How long a preflight may be kept, in seconds.
    pub max_age_seconds: u32,
}

/// An authorization call before the request passes (Gateway API `HTTPExternalAuthFilter`).
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalAuth {
    /// Who is asked.
    pub backend: BackendTarget,
    /// How.
    pub protocol: ExternalAuthProtocol,
    /// How much of the body is sent along, in bytes; 0 sends none.
    pub forward_body_bytes_max: u32,
}

/// How an authorization service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalAuthProtocol {
    /// An HTTP request; 200 lets the request pass.
    Http {
        /// Put before the request's path.
        path_prefix: String,
        /// Request header fields sent along, besides the mandatory ones.
        allowed_headers: Vec<String>,
        /// Response header fields copied to the backend request.
        allowed_response_headers: Vec<String>,
    },
    /// Envoy's `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// Request header fields sent along.
        allowed_headers: Vec<String>,
    },
}

/// An answer from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// Status, 200 to 599.
    pub status: u16,
    /// Body; may be empty.
    pub body: Arc<str>,
    /// `Content-Type` of the body; empty means `text/plain`.
    pub content_type: String,
}
