//! What the Gateway API filters of a rule do to a message head.
//!
//! Each filter is compiled once from `ir`, so that names, values and statuses are parsed before a
//! request comes, and then applied as a pure function. Which filters run, and in which order, is
//! decided by the HTTP engine; filters that need a network (mirror, external authorization) are its
//! own as well.

pub mod cors;
pub mod headers;
pub mod redirect;
pub mod rewrite;

/// Why a filter cannot be applied as written; `ir::decode` refuses such filters, so to meet one is
/// a fault of whoever built the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not a field name (RFC 9110 5.1).
    #[error("header name {0:?} is not a token, write letters, digits and -")]
    HeaderName(String),
    /// Not a field value (RFC 9110 5.5). The value may be a secret, so only the name is told.
    #[error("value of header {0} holds control characters, remove them")]
    HeaderValue(String),
    /// Not a host that a `Host` or `Location` field may carry.
    #[error("host name {0:?} is not a DNS name, write one such as www.example.com")]
    Hostname(String),
    /// Not an origin that may be shared with.
    #[error(
        "origin {0:?} is not a scheme and a host, write one such as https://*.example.com, or *"
    )]
    Origin(String),
    /// Not a status that redirects.
    #[error("status {0} does not redirect, write 301, 302, 303, 307 or 308")]
    Status(u16),
}
