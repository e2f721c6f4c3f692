//! `ExtensionRef`: from the name of an object to the filter it stands for.
//!
//! A reference that leads nowhere is never skipped (Gateway API `HTTPRouteFilter`): its requests are
//! answered with 500, and the route is told.

use std::sync::Arc;

use gateway_api::experimental::httproutes as api;
use http::HeaderValue;
use ir::Filter;
use ir::filter::DirectResponse;

use super::super::Scope;
use super::super::notes::Notes;
use crds::GROUP;

/// The largest body; it travels with the configuration and is kept in memory.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The filter that the reference names, or one that cannot be applied.
pub(super) fn resolve(
    reference: &api::HttpRouteRulesFiltersExtensionRef,
    path: &str,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> Filter {
    let (group, kind) = (reference.group.as_str(), reference.kind.as_str());
    if (group, kind) != (GROUP, "DirectResponse") {
        let message = format!("{group} {kind} is no filter, use {GROUP} DirectResponse");
        return missing("InvalidKind", path, message, notes);
    }
    let key = format!("{}/{}", scope.namespace, reference.name);
    notes.direct_responses.insert(key.as_str().into());
    let Some(object) = scope.view.direct_responses.get(&key) else {
        let message = format!("there is no DirectResponse {key}");
        return missing("ExtensionNotFound", path, message, notes);
    };
    let spec = &object.value.spec;
    let status = spec.status_code.unwrap_or(200);
    let status = u16::try_from(status)
        .ok()
        .filter(|s| (200..600).contains(s));
    let Some(status) = status else {
        let message = format!("spec.statusCode of DirectResponse {key} is not from 200 to 599");
        return missing("InvalidExtension", path, message, notes);
    };
    let content_type = spec.content_type.clone().unwrap_or_default();
    if HeaderValue::from_str(&content_type).is_err() {
        let message = format!("spec.contentType of DirectResponse {key} is no field value");
        return missing("InvalidExtension", path, message, notes);
    }
    let body = spec.body.as_deref().unwrap_or_default();
    if body.len() > BODY_BYTES_MAX {
        let message = format!(
            "spec.body of DirectResponse {key} is larger than {BODY_BYTES_MAX} bytes, use a backend"
        );
        return missing("InvalidExtension", path, message, notes);
    }
    Filter::DirectResponse(DirectResponse {
        status,
        body: Arc::from(body),
        content_type,
    })
}

fn missing(reason: &'static str, path: &str, message: String, notes: &mut Notes) -> Filter {
    notes.unresolved(reason, path, message.clone());
    Filter::Unsupported {
        name: "ExtensionRef".to_owned(),
        reason: message,
    }
}
