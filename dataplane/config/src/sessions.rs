//! Session persistence: what a client carries so that it comes back to its endpoint.
//!
//! A [`SessionPolicy`] is compiled for a rule or a cluster that asks for sessions. It reads what a
//! client brings and writes what it is given; which endpoint is taken, and whether it is well, is
//! decided in the request line and in `dataplane-upstream`. The value is sealed under a secret that
//! the replicas share, so it names an endpoint to us and nothing to anybody else. No state is kept
//! of any session. Times are passed in.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};

use dataplane_telemetry::metrics::{Gauge, SessionMetrics};
use dataplane_upstream::Cluster;
use ir::http_route::{HttpMatch, PathMatch};
use ir::policy::{SessionCarrier, SessionPersistence};

use crate::session_secrets::{SealedBy, SessionSecrets};

/// A cookie's name when the policy has none, in front of a hash of what it is for.
const COOKIE_PREFIX: &str = "nantian-session-";
/// The header field's name when the policy has none.
const HEADER_NAME: &str = "x-nantian-session";
/// Longest value that is looked at.
const TEXT_BYTES_MAX: usize = 128;
/// Cluster, address, port, and two times.
const SEALED_BYTES: usize = 8 + 16 + 2 + 6 + 6;
/// A session in use is written anew when so much of its idle time has passed.
const RENEWED_AFTER: u32 = 8;

/// How sessions of one rule or one cluster are carried, and for how long.
#[derive(Debug)]
pub struct SessionPolicy {
    /// What it was compiled from.
    source: SessionPersistence,
    kind: Kind,
    carrier: Carrier,
    secrets: Arc<SessionSecrets>,
    /// What became of sessions, in the whole process.
    pub metrics: Arc<SessionMetrics>,
}

#[derive(Debug, PartialEq, Eq)]
enum Carrier {
    Cookie {
        name: String,
        /// What follows the value, without a lifetime.
        attributes: String,
        is_permanent: bool,
    },
    Header(HeaderName),
}

/// Whose policy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rule's of a route.
    Rule,
    /// A cluster's.
    Cluster,
}

/// Where a policy stands, for what is not written in it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Whose policy it is.
    pub kind: Kind,
    /// Tells sessions of one place from those of another.
    pub name: &'a str,
    /// The path for which a cookie is sent back.
    pub path: &'a str,
}

/// What a client brought, opened and still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// [`cluster_hash`] of the endpoint's cluster.
    pub cluster: u64,
    /// Where its requests go.
    pub endpoint: SocketAddr,
    /// When it began, in milliseconds since 1970.
    began: u64,
    /// When it was last written.
    seen: u64,
    /// Under which secret.
    sealed_by: SealedBy,
}

/// The hash by which a session names a cluster; the same in every process.
pub fn cluster_hash(key: &str) -> u64 {
    Cluster::hash(key.as_bytes())
}

impl SessionPolicy {
    pub(crate) fn compile(
        source: &SessionPersistence,
        place: Place<'_>,
        secrets: &Arc<SessionSecrets>,
        metrics: &Arc<SessionMetrics>,
    ) -> Self {
        let given = source.session_name.as_deref();
        let carrier = match source.carrier {
            SessionCarrier::Header => {
                let name = given.and_then(|name| name.parse().ok());
                Carrier::Header(name.unwrap_or(HeaderName::from_static(HEADER_NAME)))
            }
            SessionCarrier::SessionCookie | SessionCarrier::PermanentCookie => Carrier::Cookie {
                name: given.map_or_else(|| default_name(place.name), ToOwned::to_owned),
                attributes: format!("; Path={}; HttpOnly; SameSite=Lax", cookie_path(place.path)),
                is_permanent: source.carrier == SessionCarrier::PermanentCookie,
            },
        };
        counted(metrics, place.kind).add(1);
        Self {
            source: source.clone(),
            kind: place.kind,
            carrier,
            secrets: Arc::clone(secrets),
            metrics: Arc::clone(metrics),
        }
    }

    /// The cookie that carries the session, if one does.
    pub fn cookie(&self) -> Option<&str> {
        match &self.carrier {
            Carrier::Cookie { name, .. } => Some(name),
            Carrier::Header(_) => None,
        }
    }

    /// The header field that carries the session, if one does.
    pub fn header(&self) -> Option<&HeaderName> {
        match &self.carrier {
            Carrier::Cookie { .. } => None,
            Carrier::Header(name) => Some(name),
        }
    }

    /// What a client brought; nothing when it is not ours, or its time is up.
    pub fn read(&self, text: &[u8], now: SystemTime) -> Option<Session> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (opened, sealed_by) = self.secrets.open(&sealed)?;
        let session = Session::from_bytes(&opened, sealed_by)?;
        let now = millis(now);
        // Clocks of replicas differ a little: what lies ahead has just begun.
        let since = |then: u64| Duration::from_millis(now.saturating_sub(then));
        let lasts = self.source.absolute_timeout;
        let is_over = lasts.is_some_and(|limit| since(session.began) >= limit);
        // It is written anew only now and then, so the pause may be longer by that much.
        let idle = self.source.idle_timeout;
        let is_idle =
            idle.is_some_and(|limit| since(session.seen) >= limit + limit / RENEWED_AFTER);
        (!is_over && !is_idle).then_some(session)
    }

    /// What a response to the client has to say; nothing when it has what it needs.
    ///
    /// `held` is what it brought, and `cluster` and `endpoint` are where its request went.
    pub fn write(
        &self,
        held: Option<&Session>,
        cluster: u64,
        endpoint: SocketAddr,
        is_secured: bool,
        now: SystemTime,
    ) -> Option<(HeaderName, HeaderValue)> {
        let now = millis(now);
        let same = held.filter(|held| held.cluster == cluster && held.endpoint == endpoint);
        let is_due = |held: &Session| {
            let seen = Duration::from_millis(now.saturating_sub(held.seen));
            let idle = self.source.idle_timeout;
            held.sealed_by == SealedBy::Other
                || idle.is_some_and(|limit| seen >= limit / RENEWED_AFTER)
        };
        if same.is_some_and(|held| !is_due(held)) {
            return None;
        }
        let session = Session {
            cluster,
            endpoint,
            // A session that moves to another endpoint goes on; it does not begin again.
            began: held.map_or(now, |held| held.began),
            seen: now,
            sealed_by: SealedBy::Current,
        };
        let text = URL_SAFE_NO_PAD.encode(self.secrets.seal(&session.to_bytes()));
        let field = match &self.carrier {
            Carrier::Header(name) => (name.clone(), HeaderValue::try_from(text).ok()?),
            Carrier::Cookie {
                name,
                attributes,
                is_permanent,
            } => {
                let mut cookie = format!("{name}={text}{attributes}");
                if is_secured {
                    cookie.push_str("; Secure");
                }
                if let (true, Some(limit)) = (is_permanent, self.source.absolute_timeout) {
                    let passed = Duration::from_millis(now.saturating_sub(session.began));
                    let left = limit.saturating_sub(passed).as_secs().max(1);
                    let _ = write!(cookie, "; Max-Age={left}");
                }
                let value = HeaderValue::try_from(cookie).ok()?;
                (http::header::SET_COOKIE, value)
            }
        };
        Some(field)
    }
}

impl Drop for SessionPolicy {
    fn drop(&mut self) {
        counted(&self.metrics, self.kind).add(-1);
    }
}

fn counted(metrics: &SessionMetrics, kind: Kind) -> &Gauge {
    match kind {
        Kind::Rule => &metrics.rules,
        Kind::Cluster => &metrics.backends,
    }
}

impl Session {
    fn to_bytes(self) -> [u8; SEALED_BYTES] {
        let ip = match self.endpoint.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; SEALED_BYTES];
        bytes[..8].copy_from_slice(&self.cluster.to_be_bytes());
        bytes[8..24].copy_from_slice(&ip.octets());
        bytes[24..26].copy_from_slice(&self.endpoint.port().to_be_bytes());
        bytes[26..32].copy_from_slice(&self.began.to_be_bytes()[2..]);
        bytes[32..].copy_from_slice(&self.seen.to_be_bytes()[2..]);
        bytes
    }

    fn from_bytes(bytes: &[u8], sealed_by: SealedBy) -> Option<Self> {
        let bytes: &[u8; SEALED_BYTES] = bytes.try_into().ok()?;
        let number = |range: std::ops::Range<usize>| {
            bytes[range]
                .iter()
                .fold(0_u64, |all, byte| all << 8 | u64::from(*byte))
        };
        let ip: [u8; 16] = bytes[8..24].try_into().ok()?;
        Some(Self {
            cluster: number(0..8),
            endpoint: SocketAddr::new(
                Ipv6Addr::from(ip).to_canonical(),
                u16::try_from(number(24..26)).ok()?,
            ),
            began: number(26..32),
            seen: number(32..38),
            sealed_by,
        })
    }
}

/// The path for which the cookies of a rule are sent back: that of its matches, when they have one
/// in common, and else everything.
pub(crate) fn path_of(matches: &[HttpMatch]) -> &str {
    let mut paths = matches.iter().map(|it| &it.path);
    match paths.next() {
        Some(PathMatch::Exact(text) | PathMatch::Prefix(text))
            if paths.all(|it| match it {
                PathMatch::Exact(other) | PathMatch::Prefix(other) => other == text,
                PathMatch::Regex(_) => false,
            }) =>
        {
            text
        }
        _ => "/",
    }
}

/// A path that can stand in a cookie (RFC 6265 4.1.1); everything when it cannot.
fn cookie_path(path: &str) -> &str {
    let is_plain = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b';';
    match path.starts_with('/') && path.bytes().all(is_plain) {
        true => path,
        false => "/",
    }
}

fn default_name(place: &str) -> String {
    let hash = Cluster::hash(place.as_bytes()) >> 32;
    format!("{COOKIE_PREFIX}{hash:08x}")
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
