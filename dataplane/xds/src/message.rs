//! Between the protocol's own words and the wire's messages.
//!
//! `client.rs` builds every request here and reads every response here. Texts that a peer chose are
//! cut to a limit in both directions, so that neither an answer nor what is remembered of a response
//! can grow without bound.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ir::{Version, decode, wire};

use crate::apply::{Rejection, Update};
use crate::session::{Content, Push, Response, Standing};
use crate::status::{Detail, PluginDetail};

/// The longest version or nonce taken, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The longest text of a refusal, in bytes.
const REASON_BYTES_MAX: usize = 8 * 1024;
/// The longest part of one violation, in bytes.
const VIOLATION_BYTES_MAX: usize = 1024;
/// How many violations go into one refusal.
const VIOLATIONS_MAX: usize = 256;
/// Plugins told of in one status report.
const PLUGINS_MAX: usize = 1024;
/// How many resource types may have a version.
const TYPES_MAX: usize = 64;

/// Who speaks.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) cluster: String,
}

impl Node {
    /// The opening request, and the plain request on an open stream; without a version it asks for
    /// a whole snapshot.
    pub(crate) fn hello(
        &self,
        version: Option<&Version>,
        type_versions: &BTreeMap<String, String>,
    ) -> wire::DiscoveryRequest {
        wire::DiscoveryRequest {
            version: version.map_or_else(String::new, Version::to_string),
            subscriptions: vec!["*".to_owned()],
            supported_features: decode::FEATURES.map(str::to_owned).to_vec(),
            accepts_delta: true,
            type_versions: match version {
                Some(_) => type_versions.clone(),
                None => BTreeMap::new(),
            },
            ..self.request(wire::DiscoveryResultStatus::DiscoveryUnspecified)
        }
    }

    /// The acknowledgement of an update.
    pub(crate) fn ack(&self, version: &Version, nonce: String) -> wire::DiscoveryRequest {
        wire::DiscoveryRequest {
            version: version.to_string(),
            nonce,
            ..self.request(wire::DiscoveryResultStatus::DiscoveryAck)
        }
    }

    /// The refusal of an update. It carries the refused version, not the held one: a control plane
    /// of the contract matches answers to pushes by version.
    pub(crate) fn nack(
        &self,
        version: Option<&Version>,
        nonce: String,
        rejection: &Rejection,
    ) -> wire::DiscoveryRequest {
        let violations = rejection.violations.iter().take(VIOLATIONS_MAX);
        wire::DiscoveryRequest {
            version: version.map_or_else(String::new, Version::to_string),
            nonce,
            error_detail: cut(&rejection.reason, REASON_BYTES_MAX),
            violations: violations
                .map(|violation| wire::ConfigViolation {
                    object: cut(&violation.object, VIOLATION_BYTES_MAX),
                    path: cut(&violation.path, VIOLATION_BYTES_MAX),
                    message: cut(&violation.message, VIOLATION_BYTES_MAX),
                })
                .collect(),
            ..self.request(wire::DiscoveryResultStatus::DiscoveryNack)
        }
    }

    /// How this data plane is doing.
    pub(crate) fn status_report(
        &self,
        standing: &Standing,
        detail: Option<Detail>,
        observed_at: SystemTime,
    ) -> wire::StatusReport {
        wire::StatusReport {
            node_id: self.id.clone(),
            version: standing
                .version
                .as_ref()
                .map_or_else(String::new, Version::to_string),
            ready: standing.ready,
            message: cut(&standing.message, REASON_BYTES_MAX),
            observed_at: Some(observed_at.into()),
            detail: detail.map(|detail| wire::StatusDetail {
                active_listeners: detail.active_listeners,
                http_routes: detail.http_routes,
                grpc_routes: detail.grpc_routes,
                stream_routes: detail.stream_routes,
                clusters: detail.clusters,
                endpoints_ready: detail.endpoints_ready,
                endpoints_total: detail.endpoints_total,
                plugins: detail
                    .plugins
                    .into_iter()
                    .take(PLUGINS_MAX)
                    .map(plugin)
                    .collect(),
            }),
        }
    }

    fn request(&self, status: wire::DiscoveryResultStatus) -> wire::DiscoveryRequest {
        wire::DiscoveryRequest {
            node_id: self.id.clone(),
            cluster: self.cluster.clone(),
            result_status: status.into(),
            ..wire::DiscoveryRequest::default()
        }
    }
}

fn plugin(detail: PluginDetail) -> wire::PluginStatus {
    wire::PluginStatus {
        key: detail.key,
        sha256: detail.sha256,
        module_error: cut(&detail.module_error, VIOLATION_BYTES_MAX),
        disabled: detail.is_disabled,
        last_failure: cut(&detail.last_failure, VIOLATION_BYTES_MAX),
    }
}

/// What a message of the control plane means. One with a snapshot and a delta is a snapshot, as it
/// is to a peer that knows no deltas.
pub(crate) fn read(response: wire::DiscoveryResponse) -> Response<Update> {
    let wire::DiscoveryResponse {
        version,
        nonce,
        snapshot,
        delta,
        type_versions,
        live_replicas: _,
    } = response;
    let content = match (snapshot, delta) {
        (None, None) => return Response::Heartbeat,
        (Some(snapshot), _) => read_full(snapshot, &version),
        (None, Some(delta)) => read_delta(delta, &version),
    };
    let content = if nonce.len() > NAME_BYTES_MAX {
        Content::Unusable {
            reason: format!("the nonce is longer than {NAME_BYTES_MAX} bytes"),
        }
    } else {
        content
    };
    Response::Push(Push {
        nonce: cut(&nonce, NAME_BYTES_MAX),
        content,
        type_versions: bounded(type_versions),
    })
}

fn read_full(mut snapshot: wire::ConfigSnapshot, outer: &str) -> Content<Update> {
    match choose_version(&snapshot.id, outer) {
        Ok(version) => {
            snapshot.id = version.to_string();
            Content::Full {
                version,
                update: Update::Full(Box::new(snapshot)),
            }
        }
        Err(reason) => Content::Unusable { reason },
    }
}

fn read_delta(mut delta: wire::SnapshotDelta, outer: &str) -> Content<Update> {
    match choose_version(&delta.version, outer) {
        Ok(version) => {
            delta.version = version.to_string();
            let base = &delta.base_version;
            let base_is_usable = !base.is_empty() && base.len() <= NAME_BYTES_MAX;
            Content::Delta {
                base: base_is_usable.then(|| Version::new(base)),
                version,
                update: Update::Delta(Box::new(delta)),
            }
        }
        Err(reason) => Content::Unusable { reason },
    }
}

/// The version of an update: the one inside it, or when that is blank the one beside it.
fn choose_version(inner: &str, outer: &str) -> Result<Version, String> {
    let text = if inner.trim().is_empty() {
        outer
    } else {
        inner
    };
    if text.trim().is_empty() {
        return Err("the update carries no version, neither inside nor beside it".to_owned());
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(format!("the version is longer than {NAME_BYTES_MAX} bytes"));
    }
    Ok(Version::new(text))
}

fn bounded(type_versions: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let fits = |(name, version): &(String, String)| {
        name.len() <= NAME_BYTES_MAX && version.len() <= NAME_BYTES_MAX
    };
    type_versions
        .into_iter()
        .filter(fits)
        .take(TYPES_MAX)
        .collect()
}

/// The text up to a limit in bytes, whole characters only.
fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests;
