//! Who may ask for what, and which file answers.
//!
//! Called by `connection.rs` for each request. The token is asked for before anything about a path
//! is told, compared in constant time, and never written anywhere.

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use ir::SecretText;
use subtle::ConstantTimeEq as _;

use super::answer::{Answer, AnswerBody};
use super::path::{Filter, Target};
use super::{Context, health, inventory, log_level, metrics, resilience, xds};

/// The paths and who may use them.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) context: Context,
    /// What callers must show; `None` lets everyone in.
    pub(super) token: Option<SecretText>,
}

impl Api {
    /// Answers one request and counts it.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let method = request.method().clone();
        let target = Target::of(request.uri().path());
        let label = target.as_ref().map_or("unknown", Target::label);
        let answer = if target.as_ref().is_some_and(Target::is_open) || self.is_allowed(&request) {
            match target {
                Some(target) => self.dispatch(target, request).await,
                None => Answer::not_found("no such path"),
            }
        } else {
            let message = "send `Authorization: Bearer` with the token of adminAuth";
            Answer::error(StatusCode::UNAUTHORIZED, message)
        };
        let status = answer.status.as_u16();
        let counts = &self.context.state.metrics.admin;
        counts.observe(method.as_str(), label, status);
        answer.into_response()
    }

    async fn dispatch(&self, target: Target, request: Request<Incoming>) -> Answer {
        let context = &self.context;
        let method = request.method();
        if target == Target::LogLevel && method == Method::PUT {
            return log_level::change(context, request.into_body()).await;
        }
        if method != Method::GET && method != Method::HEAD {
            let is_log_level = target == Target::LogLevel;
            return Answer::method_not_allowed(if is_log_level {
                "GET, HEAD, PUT"
            } else {
                "GET, HEAD"
            });
        }
        let filter = match Filter::of(request.uri().query()) {
            Ok(filter) => filter,
            Err(message) => return Answer::error(StatusCode::BAD_REQUEST, &message),
        };
        match target {
            Target::Livez => health::live(context),
            Target::Readyz => health::ready(context),
            Target::Metrics => metrics::scrape(context).await,
            Target::ConfigVersion => xds::config_version(context),
            Target::XdsStatus => xds::status(context),
            Target::Snapshot => inventory::snapshot(context),
            Target::Summary => inventory::summary(context),
            Target::Overload => inventory::overload(context),
            Target::CircuitBreakers => resilience::circuit_breakers(context, filter),
            Target::RateLimits => resilience::rate_limits(context, filter),
            Target::Endpoints => resilience::endpoints(context, filter),
            Target::Traffic => inventory::traffic(context),
            Target::LogLevel => log_level::show(context),
            Target::Listeners => inventory::listeners(context, filter),
            Target::Listener(name) => inventory::listener(context, &name),
            Target::ListenerStatuses => inventory::listener_statuses(context, filter),
            Target::ListenerStatus(name) => inventory::listener_status(context, &name),
            Target::Routes => inventory::routes(context, filter),
            Target::Route(kind, key) => inventory::route(context, &kind, &key),
            Target::Backends => inventory::backends(context, filter),
            Target::Backend(key) => inventory::backend(context, &key),
        }
    }

    fn is_allowed(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let shown = request.headers().get(header::AUTHORIZATION);
        shown.is_some_and(|value| shows(value.as_bytes(), token))
    }
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
}
