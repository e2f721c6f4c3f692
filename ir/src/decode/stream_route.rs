//! TCP, UDP and TLS routes.

use super::report::{At, Report, list};
use super::{route, value};
use crate::StreamRoute;
use crate::stream_route::{StreamKind, StreamMatch, StreamRule, TlsRouteMode};
use crate::wire;

/// One route; nothing, with a notice, when its kind is of another generation.
pub(super) fn stream_route(route: wire::StreamRoute, report: &mut Report) -> Option<StreamRoute> {
    let kind = match wire::RouteKind::try_from(route.kind) {
        Ok(wire::RouteKind::Tcp) => StreamKind::Tcp,
        Ok(wire::RouteKind::Udp) => StreamKind::Udp,
        Ok(wire::RouteKind::Tls) => StreamKind::Tls,
        _ => {
            let key = format!("{}/{}", route.namespace, route.name);
            let number = route.kind;
            report.notice(
                &At::object("StreamRoute", &key).field("kind"),
                format_args!("{number} is not a kind this data plane knows, the route is left out"),
            );
            return None;
        }
    };
    known_route(route, kind, report)
}

fn known_route(
    route: wire::StreamRoute,
    kind: StreamKind,
    report: &mut Report,
) -> Option<StreamRoute> {
    let object = value::object_key(&route.namespace, &route.name, kind.object_kind(), report)?;
    let at = At::object(kind.object_kind(), &object);
    let parents = list(
        route.parent_refs,
        &at,
        "parent_refs",
        report,
        route::parent_ref,
    );
    let rules = list(route.rules, &at, "rules", report, |rule, at, report| {
        stream_rule(rule, &route.namespace, kind, at, report)
    });
    let created_at = value::timestamp(route.created_at, &at, "created_at", report);
    Some(StreamRoute {
        key: StreamRoute::key_of(kind, &route.namespace, &route.name).into(),
        kind,
        listeners: route::listeners(&route.attached_listeners, report),
        parent_refs: parents?,
        rules: rules?,
        labels: route.labels.into(),
        annotations: route.annotations.into(),
        created_at: created_at?,
    })
}

fn stream_rule(
    rule: wire::StreamRule,
    namespace: &str,
    kind: StreamKind,
    at: &At<'_>,
    report: &mut Report,
) -> Option<StreamRule> {
    let matches = list(rule.matches, at, "matches", report, |item, at, report| {
        stream_match(item, kind, at, report)
    });
    let backends = route::backends(rule.backend_refs, namespace, at, report);
    let mut matches = matches?;
    if matches.is_empty() {
        matches.push(StreamMatch::default());
    }
    Some(StreamRule {
        name: value::non_empty(rule.name),
        matches,
        backends: backends?,
    })
}

fn stream_match(
    item: wire::StreamMatch,
    kind: StreamKind,
    at: &At<'_>,
    report: &mut Report,
) -> Option<StreamMatch> {
    let port = value::optional_port(item.port, &at.field("port"), report);
    let sni = match item.sni_hostname.as_str() {
        "" | "*" => Some(None),
        _ if kind != StreamKind::Tls => report.refuse(
            &at.field("sni_hostname"),
            "stands in a route without TLS, use a TLSRoute",
        ),
        name => value::hostname(name, &at.field("sni_hostname"), report).map(Some),
    };
    let mode = match wire::TlsRouteMode::try_from(item.mode) {
        Ok(wire::TlsRouteMode::TlsRouteUnspecified) => None,
        Ok(wire::TlsRouteMode::TlsRoutePassthrough) => Some(TlsRouteMode::Passthrough),
        Ok(wire::TlsRouteMode::TlsRouteTerminate) => Some(TlsRouteMode::Terminate),
        Err(_) => {
            let number = item.mode;
            report.notice(
                &at.field("mode"),
                format_args!("{number} is not a mode this data plane knows, the listener decides"),
            );
            None
        }
    };
    Some(StreamMatch {
        port: port?,
        sni: sni?,
        mode,
    })
}
