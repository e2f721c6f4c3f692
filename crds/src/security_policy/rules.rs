//! What more than one field of a SecurityPolicy must agree on, and what a pattern cannot say.

use std::net::IpAddr;
use std::time::Duration;

use super::{RateLimit, RateLimitKey, SecurityPolicySpec};
use crate::rule::{Faults, Rule};
use crate::target_ref::GATEWAY_API;

const PERIOD_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

pub(super) const TARGET_KIND: Rule = Rule {
    cel: "self.all(t, (t.group == '' && t.kind == 'Service') || (t.group == 'gateway.networking.k8s.io' && t.kind in ['Gateway', 'HTTPRoute', 'GRPCRoute']))",
    message: "may name only kinds Gateway, HTTPRoute and GRPCRoute of group gateway.networking.k8s.io and kind Service of group \"\"",
};
pub(super) const TARGET_SECTION: Rule = Rule {
    cel: "self.all(t, !has(t.sectionName) || t.kind == 'Gateway')",
    message: "sectionName is only for kind Gateway, where it names a listener",
};
pub(super) const KEY_HEADER: Rule = Rule {
    cel: "(has(self.keyType) && self.keyType == 'header') == has(self.keyHeaderName)",
    message: "keyHeaderName goes with keyType header and is needed there",
};
pub(super) const KEY_COOKIE: Rule = Rule {
    cel: "(has(self.keyType) && self.keyType == 'cookie') == has(self.keyCookieName)",
    message: "keyCookieName goes with keyType cookie and is needed there",
};
pub(super) const PERIOD: Rule = Rule {
    cel: "!has(self.period) || (duration(self.period) > duration('0s') && duration(self.period) <= duration('744h'))",
    message: "period must be more than nothing and up to 744h",
};
pub(super) const CIDR: Rule = Rule {
    cel: "(!has(self.allowCIDRs) || self.allowCIDRs.all(c, isCIDR(c))) && (!has(self.denyCIDRs) || self.denyCIDRs.all(c, isCIDR(c)))",
    message: "holds what is no address block, write one such as 10.0.0.0/8 or 2001:db8::/32",
};

pub(super) const ALL: &[Rule] = &[
    TARGET_KIND,
    TARGET_SECTION,
    KEY_HEADER,
    KEY_COOKIE,
    PERIOD,
    CIDR,
];

pub(crate) fn rules(spec: &SecurityPolicySpec, faults: &mut Faults) {
    let targets = &spec.target_refs;
    let known = targets.iter().all(
        |target| match (target.group.as_str(), target.kind.as_str()) {
            ("", kind) => kind == "Service",
            (GATEWAY_API, kind) => matches!(kind, "Gateway" | "HTTPRoute" | "GRPCRoute"),
            _ => false,
        },
    );
    faults.unless(known, "spec.targetRefs", TARGET_KIND);
    let fits = |target: &crate::target_ref::TargetRef| {
        target.section_name.is_none() || target.kind == "Gateway"
    };
    faults.unless(targets.iter().all(fits), "spec.targetRefs", TARGET_SECTION);
    for (index, limit) in spec.rate_limit.iter().enumerate() {
        rate_limit(limit, &format!("spec.rateLimit[{index}]"), faults);
    }
    if let Some(ip) = &spec.ip {
        let holds = ip
            .allow_cidrs
            .iter()
            .chain(&ip.deny_cidrs)
            .all(|text| is_cidr(text));
        faults.unless(holds, "spec.ip", CIDR);
    }
}

fn rate_limit(limit: &RateLimit, path: &str, faults: &mut Faults) {
    let by = |key| limit.key_type == Some(key);
    faults.unless(
        by(RateLimitKey::Header) == limit.key_header_name.is_some(),
        path,
        KEY_HEADER,
    );
    faults.unless(
        by(RateLimitKey::Cookie) == limit.key_cookie_name.is_some(),
        path,
        KEY_COOKIE,
    );
    if let Some(period) = limit
        .period
        .as_ref()
        .and_then(crate::duration::Duration::read)
    {
        faults.unless(!period.is_zero() && period <= PERIOD_MAX, path, PERIOD);
    }
}

/// An address, a slash and how many of its bits count, as the API server's `isCIDR` has it.
fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let max = if address.is_ipv4() { 32 } else { 128 };
    let is_plain = bits == "0" || !bits.starts_with(['0', '+']);
    is_plain && bits.parse::<u8>().is_ok_and(|bits| bits <= max)
}
