//! One rule of a limit of rate.
//!
//! Read by `security.rs`, which stands in front of listeners, routes and clusters alike; what the
//! rule does not say is taken from where it stands.

use std::time::Duration;

use super::report::{At, Quoted, Report};
use super::value;
use crate::policy::{RateLimit, RateLimitKey, RateLimitScope};
use crate::wire;

/// Longer names are refused: they become label values and header fields.
const NAME_BYTES_MAX: usize = 63;
/// Longer periods are refused: buckets count nanoseconds.
const PERIOD_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// The rule, in the policy of an object of that scope.
pub(super) fn rate_limit(
    item: wire::RateLimitRule,
    own: RateLimitScope,
    at: &At<'_>,
    report: &mut Report,
) -> Option<RateLimit> {
    let requests = match item.requests_per_second {
        0 => report.refuse(
            &at.field("requests_per_second"),
            "is zero, write at least 1",
        ),
        requests => Some(requests),
    };
    let scope = scope(item.scope, own, at, report);
    let name = name(item.name, at, report);
    let period = period(item.period, at, report);
    let key = match item.key_type.as_str() {
        "" | "route" | "Route" => Some(RateLimitKey::Route),
        "sourceIP" | "SourceIP" | "source_ip" | "source-ip" => Some(RateLimitKey::SourceIp),
        "header" | "Header" => {
            let at = at.field("key_header_name");
            value::header_name(item.key_header_name, &at, report).map(RateLimitKey::Header)
        }
        "cookie" | "Cookie" if value::is_token(&item.key_cookie_name) => {
            Some(RateLimitKey::Cookie(item.key_cookie_name))
        }
        "cookie" | "Cookie" => {
            let at = at.field("key_cookie_name");
            report.refuse(&at, "is not the name of a cookie")
        }
        other => {
            let shown = Quoted(other);
            report.refuse(
                &at.field("key_type"),
                format_args!("{shown} is not known, write sourceIP, header, cookie or route"),
            )
        }
    };
    let queue = match wire::RateLimitAction::try_from(item.on_limit) {
        Ok(wire::RateLimitAction::Queue) => true,
        Ok(_) => false,
        Err(_) => {
            report.notice(&at.field("on_limit"), "is not known, requests are refused");
            false
        }
    };
    Some(RateLimit {
        name: name?,
        scope,
        requests: requests?,
        period: period?,
        burst: item.burst,
        key: key?,
        queue,
        is_dry_run: item.dry_run,
        is_divided: item.divided_among_replicas,
    })
}

fn scope(number: i32, own: RateLimitScope, at: &At<'_>, report: &mut Report) -> RateLimitScope {
    match wire::RateLimitScope::try_from(number) {
        Ok(wire::RateLimitScope::Global) => RateLimitScope::Global,
        Ok(wire::RateLimitScope::Listener) => RateLimitScope::Listener,
        Ok(wire::RateLimitScope::Route) => RateLimitScope::Route,
        Ok(wire::RateLimitScope::Backend) => RateLimitScope::Backend,
        Ok(wire::RateLimitScope::Unspecified) => own,
        Err(_) => {
            report.notice(
                &at.field("scope"),
                "is not known, that of the object is used",
            );
            own
        }
    }
}

fn name(name: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain) {
        return Some(name);
    }
    let shown = Quoted(&name);
    report.refuse(
        &at.field("name"),
        format_args!("{shown} must be up to 63 letters, digits, '-', '_' and '.'"),
    )
}

fn period(
    item: Option<prost_types::Duration>,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Duration> {
    match value::duration(item, at, "period", report)? {
        None => Some(Duration::from_secs(1)),
        Some(period) if period.is_zero() || period > PERIOD_MAX => report.refuse(
            &at.field("period"),
            "is no time in which requests can be counted, write more than nothing and up to 31 days",
        ),
        period => period,
    }
}
