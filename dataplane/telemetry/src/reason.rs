//! The one list of outcomes a request can have.
//!
//! The access log, the metrics, the admin API and the replies all name an outcome by this enum, so
//! that a figure in a dashboard, a line in a log and a body sent to a client can be told to be the
//! same thing. Statuses are not decided here: `http/src/reply.rs` does that.

use std::fmt;

/// Declares the enum together with its facts, so that no variant can lack one.
macro_rules! reasons {
    ($( $(#[$attribute:meta])+ $variant:ident, $name:literal, $flag:literal, $side:ident; )+) => {
        /// How a request ended, and why.
        ///
        /// The text of [`Reason::as_str`] is a promise to dashboards and never changes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $( $(#[$attribute])+ $variant, )+
        }

        impl Reason {
            /// Every outcome, in declaration order; `ALL[r.index()] == r`.
            pub const ALL: [Self; [$( Self::$variant ),+].len()] = [$( Self::$variant ),+];

            /// The stable name: snake case, for metrics, logs and replies.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }

            /// The short response flag of the access log; `none` when nothing is out of order.
            pub const fn flag(self) -> &'static str {
                match self { $( Self::$variant => $flag, )+ }
            }

            /// Whose doing the outcome was.
            pub const fn side(self) -> Side {
                match self { $( Self::$variant => Side::$side, )+ }
            }
        }
    };
}

reasons! {
    /// The backend's answer went to the client.
    #[default]
    Ok, "ok", "none", Upstream;
    /// A redirect filter answered.
    Redirected, "redirected", "none", Internal;
    /// The configuration itself holds the answer.
    DirectResponse, "direct_response", "none", Internal;
    /// A CORS filter answered a preflight.
    CorsPreflight, "cors_preflight", "none", Internal;

    /// No route matched.
    RouteNotFound, "route_not_found", "NR", Downstream;
    /// The request's host belongs to another listener than its connection (421).
    MisdirectedRequest, "misdirected_request", "NR", Downstream;
    /// The message broke HTTP, or a rule of ours that keeps requests unambiguous.
    BadRequest, "bad_request", "BR", Downstream;
    /// The head has too many bytes or too many fields.
    HeadTooLarge, "head_too_large", "RH", Downstream;
    /// The request target is too long.
    UriTooLong, "uri_too_long", "RH", Downstream;
    /// The body is larger than the limit.
    BodyTooLarge, "body_too_large", "RB", Downstream;
    /// The head did not arrive in time.
    HeadTimeout, "head_timeout", "IT", Downstream;
    /// The body stood still for too long.
    BodyTimeout, "body_timeout", "IT", Downstream;
    /// The client went away before the end.
    ClientAborted, "client_aborted", "DC", Downstream;
    /// The client asked for a protocol switch that is not allowed here.
    UpgradeRefused, "upgrade_refused", "BR", Downstream;
    /// The client's address may not come in.
    AddressDenied, "address_denied", "AD", Downstream;
    /// A rate limit said no.
    RateLimited, "rate_limited", "RL", Downstream;

    /// Neither side of a connection or UDP session sent anything for too long.
    IdleTimeout, "idle_timeout", "IT", Downstream;
    /// A connection reached the age at which it is ended.
    AgeLimit, "age_limit", "MA", Downstream;
    /// No listener or route has the name the client asked for by TLS, or it asked for none.
    UnknownServerName, "unknown_server_name", "NR", Downstream;
    /// What should begin a TLS connection is not a ClientHello.
    BadClientHello, "bad_client_hello", "BR", Downstream;
    /// A TLS handshake with a client failed: no common version or protocol, a broken message, or
    /// an alert of the client.
    DownstreamTls, "downstream_tls", "BR", Downstream;
    /// A client showed no certificate by TLS where one is needed, or none that is trusted.
    ClientCertificate, "client_certificate", "AD", Downstream;
    /// A TLS handshake with a client did not end in time.
    HandshakeTimeout, "handshake_timeout", "IT", Downstream;

    /// No endpoint of the cluster can take a request.
    NoEndpoint, "no_endpoint", "UH", Upstream;
    /// No connection to an endpoint came up.
    ConnectFailed, "connect_failed", "UF", Upstream;
    /// An endpoint did not accept a connection in time.
    ConnectTimeout, "connect_timeout", "UF", Upstream;
    /// The TLS handshake with an endpoint failed.
    UpstreamTls, "upstream_tls", "UF", Upstream;
    /// An endpoint's certificate is not trusted, or is for another name.
    UpstreamCertificate, "upstream_certificate", "UF", Upstream;
    /// The backend broke its connection or stream.
    UpstreamReset, "upstream_reset", "UC", Upstream;
    /// The backend's answer broke its protocol.
    UpstreamProtocol, "upstream_protocol", "UP", Upstream;
    /// The backend did not answer in time.
    UpstreamTimeout, "upstream_timeout", "UT", Upstream;
    /// The request as a whole, all attempts together, took too long.
    RequestTimeout, "request_timeout", "UT", Upstream;
    /// A circuit breaker is open.
    CircuitOpen, "circuit_open", "CB", Upstream;
    /// The backend has as many requests or connections as it may have.
    BackendOverload, "backend_overload", "CB", Upstream;

    /// The authorization service said no.
    AuthorizationDenied, "authorization_denied", "AD", Downstream;
    /// The authorization service gave no answer that could be understood.
    AuthorizationFailed, "authorization_failed", "AF", Internal;
    /// A plugin answered.
    PluginReply, "plugin_reply", "none", Internal;
    /// A plugin whose failure policy is to close could not serve the request.
    PluginFailed, "plugin_failed", "PF", Internal;
    /// The rule's backend does not exist, or may not be referred to.
    InvalidBackend, "invalid_backend", "IB", Internal;
    /// The rule has a filter this data plane does not know.
    UnsupportedFilter, "unsupported_filter", "IF", Internal;
    /// Too many requests or connections at once, or memory is short.
    Overload, "overload", "OL", Internal;
    /// This process is stopping.
    Draining, "draining", "DR", Internal;
    /// A fault of ours.
    Internal, "internal", "IE", Internal;
}

/// Whose doing an outcome was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The backend's.
    Upstream,
    /// The gateway's own, or its configuration's.
    Internal,
}

impl Side {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Internal => "internal",
        }
    }
}

impl Reason {
    /// How many outcomes there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The outcome of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// Something is out of order, and it was not the client's doing.
    pub fn is_fault(self) -> bool {
        self.flag() != "none" && self.side() != Side::Downstream
    }

    /// The position in [`Reason::ALL`]; always below [`Reason::COUNT`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_snake_case() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Reason::COUNT);
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
        }
    }

    #[test]
    fn index_is_the_position() {
        for (position, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), position);
        }
    }

    #[test]
    fn names_are_the_variants_in_snake_case() {
        for reason in Reason::ALL {
            let mut snake = String::new();
            for (i, c) in format!("{reason:?}").chars().enumerate() {
                if c.is_uppercase() && i > 0 {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            assert_eq!(reason.as_str(), snake);
        }
    }

    /// The flags of the contract keep their reading; the list is exhaustive by design.
    #[test]
    fn every_outcome_has_its_flag_and_side() {
        let table = [
            ("none", Side::Upstream, "ok"),
            (
                "none",
                Side::Internal,
                "redirected direct_response cors_preflight plugin_reply",
            ),
            (
                "NR",
                Side::Downstream,
                "route_not_found misdirected_request unknown_server_name",
            ),
            (
                "BR",
                Side::Downstream,
                "bad_request upgrade_refused bad_client_hello downstream_tls",
            ),
            ("RH", Side::Downstream, "head_too_large uri_too_long"),
            ("RB", Side::Downstream, "body_too_large"),
            (
                "IT",
                Side::Downstream,
                "head_timeout body_timeout idle_timeout handshake_timeout",
            ),
            ("MA", Side::Downstream, "age_limit"),
            ("DC", Side::Downstream, "client_aborted"),
            ("RL", Side::Downstream, "rate_limited"),
            ("UH", Side::Upstream, "no_endpoint"),
            (
                "UF",
                Side::Upstream,
                "connect_failed connect_timeout upstream_tls upstream_certificate",
            ),
            ("UC", Side::Upstream, "upstream_reset"),
            ("UP", Side::Upstream, "upstream_protocol"),
            ("UT", Side::Upstream, "upstream_timeout request_timeout"),
            ("CB", Side::Upstream, "circuit_open backend_overload"),
            (
                "AD",
                Side::Downstream,
                "authorization_denied address_denied client_certificate",
            ),
            ("AF", Side::Internal, "authorization_failed"),
            ("PF", Side::Internal, "plugin_failed"),
            ("IB", Side::Internal, "invalid_backend"),
            ("IF", Side::Internal, "unsupported_filter"),
            ("OL", Side::Internal, "overload"),
            ("DR", Side::Internal, "draining"),
            ("IE", Side::Internal, "internal"),
        ];
        let mut rows = 0;
        for (flag, side, names) in table {
            for name in names.split(' ') {
                let reason = Reason::ALL.into_iter().find(|r| r.as_str() == name);
                let reason = reason.unwrap_or_else(|| panic!("no outcome is called {name}"));
                assert_eq!((reason.flag(), reason.side()), (flag, side), "{name}");
                rows += 1;
            }
        }
        assert_eq!(rows, Reason::COUNT);
    }
}
