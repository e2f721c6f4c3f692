//! Options of TLS that Gateway API leaves to the implementation: bounds of the version.
//!
//! The same two names hold for listeners (`tls.options`, [`super::listener`]) and towards backends
//! (`BackendTLSPolicy.spec.options`, [`super::backend_tls`]). An option that is not known refuses
//! its owner: it may have been meant to make things safer.

use std::collections::BTreeMap;

use ir::listener::TlsVersion;

const MIN: &str = "gateway.nantian.dev/tls-min-version";
const MAX: &str = "gateway.nantian.dev/tls-max-version";

/// The lowest and highest version asked for; the error says what is not understood.
pub(super) fn versions(
    options: Option<&BTreeMap<String, String>>,
) -> Result<(TlsVersion, TlsVersion), String> {
    let (mut min_version, mut max_version) = (TlsVersion::V1_2, TlsVersion::V1_3);
    for (name, value) in options.into_iter().flatten() {
        let bound = match name.as_str() {
            MIN => &mut min_version,
            MAX => &mut max_version,
            _ => return Err(format!("{name} is not known, use {MIN} or {MAX}")),
        };
        *bound = match value.as_str() {
            "TLS1_2" | "1.2" => TlsVersion::V1_2,
            "TLS1_3" | "1.3" => TlsVersion::V1_3,
            _ => return Err(format!("{name}: write TLS1_2 or TLS1_3")),
        };
    }
    if min_version > max_version {
        return Err(format!("{MIN} is above {MAX}"));
    }
    Ok((min_version, max_version))
}
