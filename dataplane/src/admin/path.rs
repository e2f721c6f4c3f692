//! What a request's path and query ask for.
//!
//! The paths of the documents (`/api/v1/…`) and those of the contract (`/v1/…`) are the same ones.
//! `docs/reference/admin.md` tells what each answers; a test keeps the two together. Nothing here
//! looks at any state.

use std::borrow::Cow;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Livez,
    Readyz,
    Metrics,
    ConfigVersion,
    XdsStatus,
    Snapshot,
    Summary,
    Overload,
    CircuitBreakers,
    RateLimits,
    Endpoints,
    Traffic,
    LogLevel,
    Listeners,
    Listener(String),
    ListenerStatuses,
    ListenerStatus(String),
    Routes,
    /// Kind, and `namespace/name`.
    Route(String, String),
    Backends,
    /// `namespace/name`.
    Backend(String),
}

/// The paths that name no object.
const FIXED: &[(&str, Target)] = &[
    ("/livez", Target::Livez),
    ("/readyz", Target::Readyz),
    ("/metrics", Target::Metrics),
    ("/v1/config/version", Target::ConfigVersion),
    ("/v1/xds/status", Target::XdsStatus),
    ("/v1/snapshot", Target::Snapshot),
    ("/v1/config/snapshot", Target::Snapshot),
    ("/v1/summary", Target::Summary),
    ("/v1/node", Target::Summary),
    ("/v1/overload", Target::Overload),
    ("/v1/circuit-breakers", Target::CircuitBreakers),
    ("/v1/rate-limits", Target::RateLimits),
    ("/v1/endpoints", Target::Endpoints),
    ("/v1/traffic", Target::Traffic),
    ("/v1/log/level", Target::LogLevel),
    ("/v1/listeners", Target::Listeners),
    ("/v1/listener-statuses", Target::ListenerStatuses),
    ("/v1/routes", Target::Routes),
    ("/v1/backends", Target::Backends),
];

/// Reads the name of an object out of a path.
type ReadName = fn(&str) -> Option<Target>;

/// The paths that name an object behind their prefix.
const NAMED: &[(&str, ReadName)] = &[
    ("/v1/listeners/", |name| {
        Some(Target::Listener(decode(name)))
    }),
    ("/v1/listener-statuses/", |name| {
        Some(Target::ListenerStatus(decode(name)))
    }),
    ("/v1/routes/", |rest| {
        let (kind, key) = rest.split_once('/')?;
        Some(Target::Route(decode(kind), decode(key)))
    }),
    ("/v1/backends/", |key| Some(Target::Backend(decode(key)))),
];

impl Target {
    /// The target of a path; nothing when there is no such path.
    pub(super) fn of(path: &str) -> Option<Self> {
        let is_versioned = |path: &&str| path.starts_with("/v1/");
        let path = path
            .strip_prefix("/api")
            .filter(is_versioned)
            .unwrap_or(path);
        let whole = path.strip_suffix('/').filter(is_versioned).unwrap_or(path);
        if let Some((_, target)) = FIXED.iter().find(|(fixed, _)| *fixed == whole) {
            return Some(target.clone());
        }
        let mut named = NAMED.iter();
        named.find_map(|(prefix, read)| read(path.strip_prefix(prefix)?))
    }

    /// The label of the metric; from this list and never from a request.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::ConfigVersion => "/v1/config/version",
            Self::XdsStatus => "/v1/xds/status",
            Self::Snapshot => "/v1/snapshot",
            Self::Summary => "/v1/summary",
            Self::Overload => "/v1/overload",
            Self::CircuitBreakers => "/v1/circuit-breakers",
            Self::RateLimits => "/v1/rate-limits",
            Self::Endpoints => "/v1/endpoints",
            Self::Traffic => "/v1/traffic",
            Self::LogLevel => "/v1/log/level",
            Self::Listeners => "/v1/listeners",
            Self::Listener(_) => "/v1/listeners/{name}",
            Self::ListenerStatuses => "/v1/listener-statuses",
            Self::ListenerStatus(_) => "/v1/listener-statuses/{name}",
            Self::Routes => "/v1/routes",
            Self::Route(..) => "/v1/routes/{kind}/{namespace}/{name}",
            Self::Backends => "/v1/backends",
            Self::Backend(_) => "/v1/backends/{namespace}/{name}",
        }
    }

    /// True for what anybody may see.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Livez | Self::Readyz)
    }
}

/// Which entries of a list are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Only of this namespace.
    namespace: Option<String>,
    /// Only names that begin so.
    name: Option<String>,
    /// How many are left out at the front.
    pub(super) offset: usize,
    /// How many are wanted at most.
    pub(super) limit: Option<usize>,
}

impl Filter {
    /// Reads a query; parameters that are not known are ignored, as the contract's server does.
    pub(super) fn of(query: Option<&str>) -> Result<Self, String> {
        let mut filter = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            let number = || {
                let number = value.parse::<usize>();
                number.map_err(|_| format!("{name} must be a whole number, not {value:?}"))
            };
            match name {
                "namespace" if !value.is_empty() => filter.namespace = Some(value),
                "name" if !value.is_empty() => filter.name = Some(value),
                "offset" => filter.offset = number()?,
                "limit" => {
                    let limit = Some(number()?).filter(|limit| *limit > 0);
                    filter.limit = Some(limit.ok_or("limit must be at least 1")?);
                }
                _ => {}
            }
        }
        Ok(filter)
    }

    /// Whether an object is wanted.
    pub(super) fn takes(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_ref().is_none_or(|it| it == namespace)
            && self.name.as_ref().is_none_or(|it| name.starts_with(it))
    }

    /// The wanted part of a list.
    pub(super) fn page<T>(&self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.offset).take(self.limit.unwrap_or(usize::MAX))
    }
}

/// Percent-decodes; what is no UTF-8 afterwards is replaced and then matches nothing.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let decoded = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => hex(*high).zip(hex(*low)).inspect(|_| rest = tail),
            _ => None,
        };
        bytes.push(decoded.map_or(*byte, |(high, low)| high << 4 | low));
    }
    match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

fn hex(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The paths in the first column of the page's tables about the data plane.
    fn documented() -> BTreeSet<&'static str> {
        let page = include_str!("../../../docs/reference/admin.md");
        let mut parts = page.split("\n## ");
        let part = parts.find(|part| part.starts_with("The data plane\n"));
        let rows = part
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("| `/"));
        rows.filter_map(|row| row.split('|').nth(1))
            .flat_map(|cell| cell.split('`').filter(|text| text.starts_with('/')))
            .collect()
    }

    #[test]
    fn the_page_names_every_path_and_every_path_of_the_page_is_one() {
        let fixed = FIXED.iter().map(|(path, _)| *path);
        let named = NAMED
            .iter()
            .map(|(prefix, _)| Target::of(&format!("{prefix}kind/name")).unwrap().label());
        assert_eq!(documented(), fixed.chain(named).collect());
        for path in documented() {
            assert!(Target::of(path).is_some(), "{path}");
        }
    }

    #[test]
    fn both_families_of_paths_lead_to_the_same() {
        for (path, target) in [
            ("/livez", Some(Target::Livez)),
            ("/v1/livez", None),
            ("/api/livez", None),
            ("/api/v1/config/version", Some(Target::ConfigVersion)),
            ("/v1/config/version", Some(Target::ConfigVersion)),
            ("/api/v1/config/snapshot", Some(Target::Snapshot)),
            ("/v1/snapshot", Some(Target::Snapshot)),
            ("/v1/node", Some(Target::Summary)),
            ("/v1/node/", Some(Target::Summary)),
            ("/api/v1", None),
            ("/livez/", None),
            ("/v1/listeners", Some(Target::Listeners)),
            (
                "/v1/listeners/ns/gw/http",
                Some(Target::Listener("ns/gw/http".to_owned())),
            ),
            (
                "/v1/listeners/ns%2Fgw%2fhttp",
                Some(Target::Listener("ns/gw/http".to_owned())),
            ),
            (
                "/v1/routes/HTTPRoute/shop/cart",
                Some(Target::Route(
                    "HTTPRoute".to_owned(),
                    "shop/cart".to_owned(),
                )),
            ),
            ("/v1/routes/HTTPRoute", None),
            (
                "/v1/backends/shop/cart:80",
                Some(Target::Backend("shop/cart:80".to_owned())),
            ),
            ("/v1/unknown", None),
            ("/v2/summary", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(Target::of(path), target, "{path}");
        }
    }

    #[test]
    fn percent_signs_decode_or_stay() {
        for (text, decoded) in [
            ("a%2Fb", "a/b"),
            ("%", "%"),
            ("%2", "%2"),
            ("%zz", "%zz"),
            ("%e4%b8%ad", "\u{4e2d}"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode(text), decoded, "{text}");
        }
    }

    #[test]
    fn filters_are_read_and_nonsense_is_told() {
        let filter = Filter::of(Some("namespace=shop&name=ca&limit=2&offset=1&x=y")).unwrap();
        assert!(filter.takes("shop", "cart"));
        assert!(!filter.takes("shop", "pay"));
        assert!(!filter.takes("other", "cart"));
        assert_eq!(filter.page(0..9).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(Filter::of(None), Ok(Filter::default()));
        for query in ["limit=0", "limit=x", "offset=-1"] {
            assert!(Filter::of(Some(query)).is_err(), "{query}");
        }
    }
}
