//! One push as a message: a whole snapshot as its client may see it, or the way from another one.
//!
//! `stream.rs` calls [`response`] off the runtime's threads and adds the nonce.

use ir::wire::DiscoveryResponse;

use crate::history::Published;
use crate::projection::Profile;

/// The push that brings a client from `base`, or from nothing, to `current`.
pub(super) fn response(
    current: &Published,
    base: Option<&Published>,
    profile: &Profile,
) -> DiscoveryResponse {
    let mut response = DiscoveryResponse {
        version: current.snapshot.version.to_string(),
        ..DiscoveryResponse::default()
    };
    match base {
        Some(base) => {
            let mut delta = ir::delta::diff(&base.snapshot, &current.snapshot);
            delta.type_versions = current.type_versions.to_map();
            response.type_versions = delta.type_versions.clone();
            response.delta = Some(ir::encode::delta(&delta));
        }
        None if profile.is_full() => {
            response.type_versions = current.type_versions.to_map();
            response.snapshot = Some(ir::encode::snapshot(&current.snapshot));
        }
        None => {
            let seen = profile.project(&current.snapshot);
            response.snapshot = Some(ir::encode::snapshot(&seen));
        }
    }
    response
}
