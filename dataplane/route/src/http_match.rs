//! The conditions of one match besides its host and path: method, gRPC call, headers, query.
//!
//! [`crate::table`] finds the matches for a host and path and asks these whether the rest of the
//! request agrees. Compiled once from `ir`, so that names are parsed before a request comes; what
//! holds for every request leaves nothing behind. Nothing here allocates, except to match a regular
//! expression against a repeated header field or an escaped query value.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ir::http_route::{GrpcMatch, GrpcMethodMatch, HttpMatch, TextMatch, ValueMatch};

use crate::request::Request;

/// What a request must meet besides host and path; all of it must hold.
pub(crate) struct Conditions {
    method: Option<Method>,
    call: Option<CallCondition>,
    headers: Box<[HeaderCondition]>,
    params: Box<[ValueMatch]>,
}

/// No request can meet this match: its method or a header name is no token.
#[derive(Debug)]
pub(crate) struct NeverMet;

impl Conditions {
    pub(crate) fn http(route_match: &HttpMatch) -> Result<Self, NeverMet> {
        let method = match &route_match.method {
            Some(name) => Some(Method::from_bytes(name.as_bytes()).map_err(|_| NeverMet)?),
            None => None,
        };
        Ok(Self {
            method,
            call: None,
            headers: header_conditions(&route_match.headers)?,
            params: first_of_each_name(&route_match.query_params)
                .cloned()
                .collect(),
        })
    }

    pub(crate) fn grpc(route_match: &GrpcMatch) -> Result<Self, NeverMet> {
        Ok(Self {
            method: None,
            call: CallCondition::compile(&route_match.method),
            headers: header_conditions(&route_match.headers)?,
            params: Box::default(),
        })
    }

    /// True when every request meets them.
    pub(crate) fn are_trivial(&self) -> bool {
        self.method.is_none()
            && self.call.is_none()
            && self.headers.is_empty()
            && self.params.is_empty()
    }

    pub(crate) fn has_method(&self) -> bool {
        self.method.is_some()
    }

    /// Conditions on header fields; of several on one field only the first counts.
    pub(crate) fn header_count(&self) -> usize {
        self.headers.len()
    }

    /// Conditions on query parameters; of several on one parameter only the first counts.
    pub(crate) fn param_count(&self) -> usize {
        self.params.len()
    }

    pub(crate) fn are_met(&self, request: &Request<'_>) -> bool {
        self.unmet(request).is_none()
    }

    /// The first condition that the request does not meet.
    pub(crate) fn unmet(&self, request: &Request<'_>) -> Option<Unmet<'_>> {
        if let Some(method) = &self.method
            && method != request.method
        {
            return Some(Unmet::Method(method));
        }
        if let Some(call) = &self.call
            && !call.is_met(request.path)
        {
            return Some(Unmet::Call);
        }
        let mut headers = self.headers.iter();
        if let Some(header) = headers.find(|header| !header.is_met(request.headers)) {
            return Some(Unmet::Header(&header.name));
        }
        let query = request.query.unwrap_or_default();
        let mut params = self.params.iter();
        let param = params.find(|param| !is_param_met(param, query))?;
        Some(Unmet::Param(&param.name))
    }
}

/// What a request does not agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet<'a> {
    /// It has another method than this one.
    Method(&'a Method),
    /// It is no call of the gRPC service or method.
    Call,
    /// It lacks this field, or the field has another value.
    Header(&'a HeaderName),
    /// It lacks this query parameter, or the parameter has another value.
    Param(&'a str),
}

/// Gateway API: among conditions on one name the first counts, the others are ignored.
fn first_of_each_name(conditions: &[ValueMatch]) -> impl Iterator<Item = &ValueMatch> {
    conditions
        .iter()
        .enumerate()
        .filter(|(at, condition)| !conditions[..*at].iter().any(|c| c.name == condition.name))
        .map(|(_, condition)| condition)
}

fn header_conditions(conditions: &[ValueMatch]) -> Result<Box<[HeaderCondition]>, NeverMet> {
    first_of_each_name(conditions)
        .map(|condition| {
            let name = HeaderName::from_bytes(condition.name.as_bytes()).map_err(|_| NeverMet)?;
            let value = condition.value.clone();
            Ok(HeaderCondition { name, value })
        })
        .collect()
}

/// A condition on a header field.
///
/// A field that comes several times has one value, its lines joined with `,` (RFC 9110 5.2) and
/// those of `cookie` with `; ` (RFC 9113 8.2.3).
struct HeaderCondition {
    name: HeaderName,
    value: TextMatch,
}

impl HeaderCondition {
    fn is_met(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        let Some(first) = values.next() else {
            return false;
        };
        if values.next().is_none() {
            return is_text_met(&self.value, first.as_bytes());
        }
        let separator: &[u8] = if self.name == COOKIE { b"; " } else { b"," };
        is_joined_text_met(&self.value, headers.get_all(&self.name).iter(), separator)
    }
}

fn is_text_met(expected: &TextMatch, value: &[u8]) -> bool {
    match expected {
        TextMatch::Exact(text) => value == text.as_bytes(),
        TextMatch::Prefix(text) => value.starts_with(text.as_bytes()),
        TextMatch::Suffix(text) => value.ends_with(text.as_bytes()),
        TextMatch::Regex(pattern) => std::str::from_utf8(value).is_ok_and(|v| pattern.is_match(v)),
        TextMatch::Present => true,
    }
}

/// As [`is_text_met`] for the `lines` joined by `separator`, which are joined only for a regular
/// expression.
fn is_joined_text_met<'a>(
    expected: &TextMatch,
    lines: impl DoubleEndedIterator<Item = &'a HeaderValue>,
    separator: &'a [u8],
) -> bool {
    let surplus = separator.len();
    match expected {
        TextMatch::Exact(text) => lines
            .flat_map(|line| separator.iter().chain(line.as_bytes()))
            .skip(surplus)
            .eq(text.as_bytes()),
        TextMatch::Prefix(text) => starts_with(
            lines
                .flat_map(|line| separator.iter().chain(line.as_bytes()))
                .skip(surplus),
            text.as_bytes().iter(),
        ),
        TextMatch::Suffix(text) => starts_with(
            lines
                .flat_map(|line| line.as_bytes().iter().chain(separator))
                .rev()
                .skip(surplus),
            text.as_bytes().iter().rev(),
        ),
        TextMatch::Regex(pattern) => {
            let lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
            String::from_utf8(lines.join(separator)).is_ok_and(|value| pattern.is_match(&value))
        }
        TextMatch::Present => true,
    }
}

fn starts_with<'a>(
    mut bytes: impl Iterator<Item = &'a u8>,
    mut start: impl Iterator<Item = &'a u8>,
) -> bool {
    start.all(|expected| bytes.next() == Some(expected))
}

/// The first parameter of the name counts, as Gateway API recommends. Name and value are compared
/// after `+` and percent-encoding are undone; a `%` that escapes nothing stands for itself.
fn is_param_met(param: &ValueMatch, query: &str) -> bool {
    let name = param.name.as_bytes();
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| key.len() >= name.len() && unescape(key).eq(name.iter().copied()))
        .is_some_and(|(_, value)| is_escaped_text_met(&param.value, value))
}

fn is_escaped_text_met(expected: &TextMatch, value: &str) -> bool {
    if memchr::memchr2(b'%', b'+', value.as_bytes()).is_none() {
        return is_text_met(expected, value.as_bytes());
    }
    match expected {
        TextMatch::Exact(text) => unescape(value).eq(text.bytes()),
        TextMatch::Prefix(text) => {
            let mut bytes = unescape(value);
            text.bytes().all(|expected| bytes.next() == Some(expected))
        }
        TextMatch::Suffix(text) => {
            let surplus = unescape(value).count().checked_sub(text.len());
            surplus.is_some_and(|surplus| unescape(value).skip(surplus).eq(text.bytes()))
        }
        TextMatch::Regex(pattern) => {
            String::from_utf8(unescape(value).collect()).is_ok_and(|value| pattern.is_match(&value))
        }
        TextMatch::Present => true,
    }
}

/// Undoes percent-encoding and `+`, as HTML forms encode.
fn unescape(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        Some(match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, tail @ ..]) => match escaped(*high, *low) {
                Some(byte) => {
                    rest = tail;
                    byte
                }
                None => b'%',
            },
            _ => byte,
        })
    })
}

/// The byte that `%` and these two digits stand for.
pub(crate) fn escaped(high: u8, low: u8) -> Option<u8> {
    Some(hex_digit(high)? << 4 | hex_digit(low)?)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// What the path of a gRPC call must be beyond what the table has compared already.
enum CallCondition {
    /// Any method, but a service and a method and nothing more.
    Call,
    /// This method of any service.
    Method(Box<str>),
    /// Patterns; an absent one means any.
    Regex(Box<[Option<ir::Pattern>; 2]>),
}

impl CallCondition {
    fn compile(method: &GrpcMethodMatch) -> Option<Self> {
        match method {
            GrpcMethodMatch::Exact {
                service: None,
                method: Some(method),
            } => Some(Self::Method(method.as_str().into())),
            GrpcMethodMatch::Exact {
                service: Some(_),
                method: None,
            } => Some(Self::Call),
            GrpcMethodMatch::Regex { service, method } => {
                Some(Self::Regex(Box::new([service.clone(), method.clone()])))
            }
            // The whole path is compared, or nothing is.
            GrpcMethodMatch::Exact { .. } | GrpcMethodMatch::Any => None,
        }
    }

    fn is_met(&self, path: &str) -> bool {
        let Some((service, method)) = split_call(path) else {
            return false;
        };
        match self {
            Self::Call => true,
            Self::Method(expected) => method == &**expected,
            Self::Regex(patterns) => {
                let [service_pattern, method_pattern] = &**patterns;
                service_pattern.as_ref().is_none_or(|p| p.is_match(service))
                    && method_pattern.as_ref().is_none_or(|p| p.is_match(method))
            }
        }
    }
}

/// Service and method of the path `/{service}/{method}`, neither of them empty.
fn split_call(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/'))
        .then_some((service, method))
}

/// The text every path that `pattern` matches begins with; empty when none is known.
pub(crate) fn literal_prefix(pattern: &ir::Pattern) -> Cow<'static, str> {
    use regex_syntax::hir::literal::Extractor;
    let Ok(hir) = regex_syntax::parse(pattern.as_str()) else {
        return Cow::Borrowed("");
    };
    let literals = Extractor::new().extract(&hir);
    let common = literals.longest_common_prefix().unwrap_or_default();
    match std::str::from_utf8(common) {
        Ok(text) => Cow::Owned(text.to_owned()),
        // Cut inside a character: what is before it is common all the same.
        Err(error) => {
            Cow::Owned(String::from_utf8_lossy(&common[..error.valid_up_to()]).into_owned())
        }
    }
}

#[cfg(test)]
mod tests;
