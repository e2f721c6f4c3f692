//! How a request ended, as a mask of bits that plugins know from Envoy (`response.flags`).
//!
//! Asked by `plugins` when a request is over. The bits are those of Envoy's `CoreResponseFlag`, and an
//! outcome has the one that says the same of Envoy's; where there is none, no bit is set, and
//! `response.code_details` tells more.

use dataplane_telemetry::Reason;

const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
const UPSTREAM_REQUEST_TIMEOUT: u64 = 1 << 2;
const UPSTREAM_CONNECTION_FAILURE: u64 = 1 << 5;
const UPSTREAM_CONNECTION_TERMINATION: u64 = 1 << 6;
const UPSTREAM_OVERFLOW: u64 = 1 << 7;
const NO_ROUTE_FOUND: u64 = 1 << 8;
const RATE_LIMITED: u64 = 1 << 11;
const UNAUTHORIZED_EXTERNAL_SERVICE: u64 = 1 << 12;
const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 1 << 14;
const STREAM_IDLE_TIMEOUT: u64 = 1 << 16;
const DOWNSTREAM_PROTOCOL_ERROR: u64 = 1 << 18;
const NO_FILTER_CONFIG_FOUND: u64 = 1 << 21;
const DURATION_TIMEOUT: u64 = 1 << 22;
const UPSTREAM_PROTOCOL_ERROR: u64 = 1 << 23;
const NO_CLUSTER_FOUND: u64 = 1 << 24;
const OVERLOAD_MANAGER: u64 = 1 << 25;

/// The mask of an outcome.
pub(crate) const fn flags(reason: Reason) -> u64 {
    match reason {
        Reason::RouteNotFound | Reason::MisdirectedRequest | Reason::UnknownServerName => {
            NO_ROUTE_FOUND
        }
        Reason::BadRequest
        | Reason::HeadTooLarge
        | Reason::UriTooLong
        | Reason::BadClientHello
        | Reason::DownstreamTls => DOWNSTREAM_PROTOCOL_ERROR,
        Reason::HeadTimeout
        | Reason::BodyTimeout
        | Reason::IdleTimeout
        | Reason::HandshakeTimeout => STREAM_IDLE_TIMEOUT,
        Reason::ClientAborted => DOWNSTREAM_CONNECTION_TERMINATION,
        Reason::RateLimited => RATE_LIMITED,
        Reason::AgeLimit => DURATION_TIMEOUT,
        Reason::NoEndpoint => NO_HEALTHY_UPSTREAM,
        Reason::ConnectFailed
        | Reason::ConnectTimeout
        | Reason::UpstreamTls
        | Reason::UpstreamCertificate => UPSTREAM_CONNECTION_FAILURE,
        Reason::UpstreamReset => UPSTREAM_CONNECTION_TERMINATION,
        Reason::UpstreamProtocol => UPSTREAM_PROTOCOL_ERROR,
        Reason::UpstreamTimeout | Reason::RequestTimeout => UPSTREAM_REQUEST_TIMEOUT,
        Reason::CircuitOpen | Reason::BackendOverload => UPSTREAM_OVERFLOW,
        Reason::AuthorizationDenied | Reason::AuthorizationFailed => UNAUTHORIZED_EXTERNAL_SERVICE,
        Reason::InvalidBackend => NO_CLUSTER_FOUND,
        Reason::UnsupportedFilter => NO_FILTER_CONFIG_FOUND,
        Reason::Overload => OVERLOAD_MANAGER,
        Reason::Ok
        | Reason::Redirected
        | Reason::DirectResponse
        | Reason::CorsPreflight
        | Reason::BodyTooLarge
        | Reason::UpgradeRefused
        | Reason::AddressDenied
        | Reason::ClientCertificate
        | Reason::PluginReply
        | Reason::PluginFailed
        | Reason::Draining
        | Reason::Internal => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are Envoy's, and plugins have them written down.
    #[test]
    fn outcomes_have_the_bits_of_envoy() {
        for (reason, expected) in [
            (Reason::Ok, 0),
            (Reason::NoEndpoint, 0x2),
            (Reason::UpstreamTimeout, 0x4),
            (Reason::ConnectFailed, 0x20),
            (Reason::UpstreamReset, 0x40),
            (Reason::BackendOverload, 0x80),
            (Reason::RouteNotFound, 0x100),
            (Reason::RateLimited, 0x800),
            (Reason::AuthorizationDenied, 0x1000),
            (Reason::ClientAborted, 0x4000),
            (Reason::BodyTimeout, 0x1_0000),
            (Reason::BadRequest, 0x4_0000),
            (Reason::UnsupportedFilter, 0x20_0000),
            (Reason::AgeLimit, 0x40_0000),
            (Reason::UpstreamProtocol, 0x80_0000),
            (Reason::InvalidBackend, 0x100_0000),
            (Reason::Overload, 0x200_0000),
        ] {
            assert_eq!(flags(reason), expected, "{reason}");
        }
    }
}
