//! Filters that send something to a service of their own: mirrors and external authorization.

use gateway_api::experimental::httproutes as api;
use ir::Filter;
use ir::filter::{ExternalAuth, ExternalAuthProtocol, Mirror};

use super::super::Scope;
use super::super::backend::{self, Reference};
use super::super::notes::Notes;

pub(super) fn mirror(
    spec: &api::HttpRouteRulesFiltersRequestMirror,
    path: &str,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> Option<Filter> {
    let to = &spec.backend_ref;
    let reference = Reference {
        group: to.group.as_deref(),
        kind: to.kind.as_deref(),
        namespace: to.namespace.as_deref(),
        name: &to.name,
        port: to.port,
    };
    let backend = backend::resolve(reference, &format!("{path}.backendRef"), scope, notes);
    let fraction = match (&spec.fraction, spec.percent) {
        (Some(_), Some(_)) => None,
        (Some(fraction), None) => u32::try_from(fraction.numerator)
            .ok()
            .zip(u32::try_from(fraction.denominator.unwrap_or(100)).ok()),
        (None, percent) => u32::try_from(percent.unwrap_or(100))
            .ok()
            .map(|percent| (percent, 100)),
    };
    match fraction {
        Some((part, whole)) if part <= whole && whole > 0 => Some(Filter::Mirror(Mirror {
            backend,
            fraction: (part, whole),
        })),
        _ => {
            notes.violation(
                path,
                "write percent (0 to 100) or fraction (at most 1), not both",
            );
            None
        }
    }
}

pub(super) fn external_auth(
    spec: &api::HttpRouteRulesFiltersExternalAuth,
    path: &str,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> Option<Filter> {
    use api::HttpRouteRulesFiltersExternalAuthProtocol as Protocol;
    let to = &spec.backend_ref;
    let reference = Reference {
        group: to.group.as_deref(),
        kind: to.kind.as_deref(),
        namespace: to.namespace.as_deref(),
        name: &to.name,
        port: to.port,
    };
    let backend = backend::resolve(reference, &format!("{path}.backendRef"), scope, notes);
    let protocol = match spec.protocol {
        Protocol::Http => {
            let http = spec.http.clone().unwrap_or_default();
            ExternalAuthProtocol::Http {
                path_prefix: http.path.unwrap_or_default(),
                allowed_headers: http.allowed_headers.unwrap_or_default(),
                allowed_response_headers: http.allowed_response_headers.unwrap_or_default(),
            }
        }
        Protocol::Grpc => ExternalAuthProtocol::Grpc {
            allowed_headers: spec
                .grpc
                .as_ref()
                .and_then(|grpc| grpc.allowed_headers.clone())
                .unwrap_or_default(),
        },
    };
    let forward = spec.forward_body.as_ref().and_then(|body| body.max_size);
    Some(Filter::ExternalAuth(ExternalAuth {
        backend,
        protocol,
        forward_body_bytes_max: forward
            .and_then(|size| u32::try_from(size).ok())
            .unwrap_or_default(),
    }))
}
