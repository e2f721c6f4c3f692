//! Cross-origin resource sharing (Gateway API `HTTPCORSFilter`, Fetch standard 3.2).
//!
//! [`Asked`] is what a request says about its origin, read before filters change its fields;
//! [`Cors::apply`] writes the whole answer into a response head. The gateway's word is the only one:
//! what an origin server says about sharing is taken out. That a preflight is answered without asking
//! a backend is decided by the HTTP engine.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::FilterError;

/// Fields that only this filter may write.
const OWN_FIELDS: [HeaderName; 7] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    HeaderName::from_static("access-control-allow-private-network"),
];

/// What every script may read anyway (Fetch 2.2.2), and what none may.
const NOT_TO_EXPOSE: [HeaderName; 8] = [
    header::CACHE_CONTROL,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::PRAGMA,
    header::SET_COOKIE,
];

/// What a request says about its origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its one `Origin`.
    origin: Option<HeaderValue>,
    preflight: Option<Preflight>,
}

/// What a browser wants to know before it sends the request proper.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Preflight {
    method: HeaderValue,
    headers: Option<HeaderValue>,
}

impl Asked {
    /// Reads the head of a request.
    pub fn read(method: &Method, headers: &HeaderMap) -> Self {
        let origin = single(headers, header::ORIGIN);
        let wanted = single(headers, header::ACCESS_CONTROL_REQUEST_METHOD)
            .filter(|wanted| *method == Method::OPTIONS && is_token(wanted.as_bytes()));
        let preflight = match (&origin, wanted) {
            (Some(_), Some(method)) => Some(Preflight {
                method,
                headers: wanted_headers(headers),
            }),
            _ => None,
        };
        Self { origin, preflight }
    }

    /// True when it is a preflight, which the gateway answers by itself (Fetch 3.2.2).
    pub fn is_preflight(&self) -> bool {
        self.preflight.is_some()
    }
}

/// The value of a field that is there once.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).cloned()
}

/// The field names of `Access-Control-Request-Headers`; nothing when it is not a list of names.
fn wanted_headers(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut names: Vec<&[u8]> = Vec::new();
    for value in headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        let items = value.as_bytes().split(|byte| *byte == b',');
        names.extend(
            items
                .map(<[u8]>::trim_ascii)
                .filter(|name| !name.is_empty()),
        );
    }
    if names.is_empty() || !names.iter().all(|name| is_token(name)) {
        return None;
    }
    HeaderValue::from_bytes(&names.join(&b", "[..])).ok()
}

fn is_token(text: &[u8]) -> bool {
    Method::from_bytes(text).is_ok()
}

/// A compiled `CORS` filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Box<[Origin]>,
    methods: Allowed,
    headers: Allowed,
    expose: Allowed,
    credentials: bool,
    max_age: HeaderValue,
}

/// What a list of names allows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    /// Nothing is said.
    Unsaid,
    /// `*`.
    Any,
    /// These, joined by commas.
    Listed(HeaderValue),
}

impl Cors {
    /// Parses origins and joins lists.
    pub fn compile(cors: &ir::filter::Cors) -> Result<Self, FilterError> {
        let origins: Result<_, _> = cors
            .allow_origins
            .iter()
            .map(|text| Origin::parse(text).ok_or_else(|| FilterError::Origin(text.clone())))
            .collect();
        Ok(Self {
            origins: origins?,
            methods: Allowed::compile(&cors.allow_methods)?,
            headers: Allowed::compile(&cors.allow_headers)?,
            expose: Allowed::compile(&cors.expose_headers)?,
            credentials: cors.allow_credentials,
            max_age: HeaderValue::from(cors.max_age_seconds),
        })
    }

    /// Writes the answer to `asked` into the head of the response.
    pub fn apply(&self, asked: &Asked, headers: &mut HeaderMap) {
        for name in &OWN_FIELDS {
            headers.remove(name);
        }
        vary(headers, asked.is_preflight());
        let Some(origin) = asked.origin.as_ref().filter(|origin| self.allows(origin)) else {
            return;
        };
        let mut write = |name, value: HeaderValue| {
            // Fails only beyond 32,768 fields; heads are limited to far fewer.
            let _ = headers.try_insert(name, value);
        };
        // Always the origin itself, also where `*` would do: then a request with credentials needs
        // no other answer than one without.
        write(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            write(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(preflight) = &asked.preflight {
            let methods = self.methods.answer(Some(&preflight.method));
            if let Some(value) = methods {
                write(header::ACCESS_CONTROL_ALLOW_METHODS, value);
            }
            if let Some(value) = self.headers.answer(preflight.headers.as_ref()) {
                write(header::ACCESS_CONTROL_ALLOW_HEADERS, value);
            }
            write(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        if let Some(value) = self.exposed(headers) {
            let _ = headers.try_insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, value);
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins
            .iter()
            .any(|pattern| pattern.matches(origin.as_bytes()))
    }

    /// With credentials `*` is a name like any other (Fetch 3.2.3), so the names are written out.
    fn exposed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match &self.expose {
            Allowed::Unsaid => None,
            Allowed::Listed(names) => Some(names.clone()),
            Allowed::Any if !self.credentials => Some(HeaderValue::from_static("*")),
            Allowed::Any => {
                let names: Vec<&str> = headers
                    .keys()
                    .filter(|name| !NOT_TO_EXPOSE.contains(name) && !OWN_FIELDS.contains(name))
                    .map(HeaderName::as_str)
                    .collect();
                let names = (!names.is_empty()).then(|| names.join(", "))?;
                HeaderValue::try_from(names).ok()
            }
        }
    }
}

impl Allowed {
    fn compile(names: &[String]) -> Result<Self, FilterError> {
        if let Some(bad) = names.iter().find(|name| !is_token(name.as_bytes())) {
            return Err(FilterError::HeaderName(bad.clone()));
        }
        if names.is_empty() {
            return Ok(Self::Unsaid);
        }
        if names.iter().any(|name| name == "*") {
            return Ok(Self::Any);
        }
        let joined = names.join(", ");
        match HeaderValue::from_str(&joined) {
            Ok(value) => Ok(Self::Listed(value)),
            Err(_) => Err(FilterError::HeaderName(joined)),
        }
    }

    /// What is allowed of what was asked for. Where all is, the answer names what was asked for and
    /// never `*`, which means nothing to a request with credentials and leaves out `Authorization`
    /// to every other one.
    fn answer(&self, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::Unsaid => None,
            Self::Any => asked.cloned(),
            Self::Listed(names) => Some(names.clone()),
        }
    }
}

/// Tells caches what the answer depends on; also where no origin was sent (RFC 9110 12.5.5).
fn vary(headers: &mut HeaderMap, is_preflight: bool) {
    let names: &[&str] = match is_preflight {
        true => &[
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
        ],
        false => &["Origin"],
    };
    for name in names {
        let says_so = headers.get_all(header::VARY).iter().any(|value| {
            value.as_bytes().split(|byte| *byte == b',').any(|item| {
                let item = item.trim_ascii();
                item == b"*" || item.eq_ignore_ascii_case(name.as_bytes())
            })
        });
        if !says_so {
            let _ = headers.try_append(header::VARY, HeaderValue::from_static(name));
        }
    }
}

/// A pattern of `allowOrigins`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// `*`.
    Any,
    /// A scheme, a host that may begin with a wildcard, and a port.
    Parts {
        scheme: Box<[u8]>,
        host: Host,
        port: Option<u16>,
    },
}

/// The host of a pattern, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// What it ends with, from the dot behind the wildcard on.
    Below(Box<[u8]>),
    Exact(Box<[u8]>),
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let text = text.to_ascii_lowercase();
        let (scheme, host, port) = split(text.as_bytes())?;
        let host = match host.split_first()? {
            (b'*', []) => Host::Any,
            (b'*', rest) if rest.first() == Some(&b'.') => Host::Below(rest.into()),
            _ => Host::Exact(host.into()),
        };
        let has_wildcard = match &host {
            Host::Any => false,
            Host::Below(rest) | Host::Exact(rest) => rest.contains(&b'*'),
        };
        (!has_wildcard).then(|| Self::Parts {
            scheme: scheme.into(),
            port,
            host,
        })
    }

    fn matches(&self, origin: &[u8]) -> bool {
        let Self::Parts { scheme, host, port } = self else {
            return true;
        };
        let Some((its_scheme, its_host, its_port)) = split(origin) else {
            return false;
        };
        its_port == *port
            && its_scheme.eq_ignore_ascii_case(scheme)
            && match host {
                Host::Any => true,
                Host::Exact(host) => its_host.eq_ignore_ascii_case(host),
                // At least one byte must stand for the wildcard.
                Host::Below(suffix) => {
                    its_host.len() > suffix.len()
                        && its_host[its_host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
                }
            }
    }
}

/// Scheme, host and port of an origin; the port is the scheme's own when none is written, and
/// nothing where the scheme has none.
fn split(origin: &[u8]) -> Option<(&[u8], &[u8], Option<u16>)> {
    let at = origin.windows(3).position(|three| three == b"://")?;
    let (scheme, rest) = (&origin[..at], &origin[at + 3..]);
    let (host, port) = match rest.iter().rposition(|byte| *byte == b':') {
        // Not the colons within an IPv6 address.
        Some(colon) if !rest[colon..].contains(&b']') => {
            let digits = std::str::from_utf8(&rest[colon + 1..]).ok()?;
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            (&rest[..colon], Some(digits.parse().ok()?))
        }
        _ => (rest, None),
    };
    let is_host = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'*' | b'[' | b']' | b':')
    };
    if scheme.is_empty() || host.is_empty() || !host.iter().all(is_host) {
        return None;
    }
    let well_known = || match scheme {
        scheme if scheme.eq_ignore_ascii_case(b"http") => Some(80),
        scheme if scheme.eq_ignore_ascii_case(b"https") => Some(443),
        _ => None,
    };
    Some((scheme, host, port.or_else(well_known)))
}

#[cfg(test)]
mod tests;
