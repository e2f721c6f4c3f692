//! Single values: names, numbers, times, header fields and paths.
//!
//! Every decoder in this folder uses these. Each reports what is wrong with the value at the place
//! it is given and returns `None`; an outer option is the verdict, an inner one means "not set".

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::report::{At, Quoted, Report, first_of_each};
use crate::{Hostname, Pattern};

/// The longest duration accepted, ten years; longer ones are slips of a unit.
const DURATION_SECONDS_MAX: i64 = 10 * 366 * 24 * 3600;
/// From the first second of the year 1 to the last of 9999, the limits of
/// `google.protobuf.Timestamp`.
const TIMESTAMP_SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A host name; `*` and nothing are handled by [`hostnames`].
pub(super) fn hostname(text: &str, at: &At<'_>, report: &mut Report) -> Option<Hostname> {
    match Hostname::new(text) {
        Ok(hostname) => Some(hostname),
        Err(error) => report.refuse(at, format_args!("{} {error}", Quoted(text))),
    }
}

/// A host name that is no wildcard.
pub(super) fn exact_hostname(text: &str, at: &At<'_>, report: &mut Report) -> Option<Hostname> {
    let hostname = hostname(text, at, report)?;
    if hostname.is_wildcard() {
        let shown = Quoted(text);
        return report.refuse(
            at,
            format_args!("{shown} is a wildcard, write one DNS name"),
        );
    }
    Some(hostname)
}

/// Host names served; an empty one or `*` among them means every host, which is the empty list.
pub(super) fn hostnames(
    texts: &[String],
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<Vec<Hostname>> {
    let is_any = texts.iter().any(|text| text.is_empty() || text == "*");
    let mut names: Vec<Hostname> = Vec::with_capacity(texts.len());
    let mut is_good = true;
    for (index, text) in texts.iter().enumerate() {
        if text.is_empty() || text == "*" {
            continue;
        }
        match hostname(text, &at.index(name, index), report) {
            Some(hostname) => names.push(hostname),
            None => is_good = false,
        }
    }
    if is_any {
        names.clear();
    }
    first_of_each(&mut names, Hostname::as_str);
    is_good.then_some(names)
}

/// A port, 1 to 65535.
pub(super) fn port(number: u32, at: &At<'_>, report: &mut Report) -> Option<NonZeroU16> {
    match u16::try_from(number).ok().and_then(NonZeroU16::new) {
        Some(port) => Some(port),
        None => report.refuse(at, format_args!("{number} is not a port, write 1 to 65535")),
    }
}

/// A port, or 0 for none.
pub(super) fn optional_port(
    number: u32,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Option<NonZeroU16>> {
    match number {
        0 => Some(None),
        _ => port(number, at, report).map(Some),
    }
}

/// A duration; absent and zero mean none.
pub(super) fn duration(
    value: Option<prost_types::Duration>,
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<Option<Duration>> {
    let value = duration_or_zero(value, at, name, report)?;
    Some(value.filter(|value| !value.is_zero()))
}

/// A duration where zero is something else than not set.
pub(super) fn duration_or_zero(
    value: Option<prost_types::Duration>,
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<Option<Duration>> {
    let Some(value) = value else {
        return Some(None);
    };
    let at = at.field(name);
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(value.seconds), u32::try_from(value.nanos))
    else {
        return report.refuse(&at, "is negative, write a positive duration");
    };
    if value.seconds > DURATION_SECONDS_MAX || nanos > 999_999_999 {
        return report.refuse(&at, "is longer than ten years, check its unit");
    }
    Some(Some(Duration::new(seconds, nanos)))
}

/// A number of seconds; 0 means none.
pub(super) fn seconds(
    value: i32,
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<Option<Duration>> {
    let value = prost_types::Duration {
        seconds: i64::from(value),
        nanos: 0,
    };
    duration(Some(value), at, name, report)
}

/// A moment; absent means unknown.
pub(super) fn timestamp(
    value: Option<prost_types::Timestamp>,
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<Option<SystemTime>> {
    let Some(value) = value else {
        return Some(None);
    };
    let moment = (|| {
        let nanos = u32::try_from(value.nanos)
            .ok()
            .filter(|n| *n < 1_000_000_000)?;
        let distance = Duration::from_secs(value.seconds.unsigned_abs());
        if !TIMESTAMP_SECONDS.contains(&value.seconds) {
            return None;
        }
        let second = if value.seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        };
        second?.checked_add(Duration::from_nanos(u64::from(nanos)))
    })();
    match moment {
        Some(moment) => Some(Some(moment)),
        None => report.refuse(
            &at.field(name),
            "is not a moment between the years 1 and 9999",
        ),
    }
}

/// The name of a header field, RFC 9110 section 5.1, in lower case.
pub(super) fn header_name(mut name: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    if !is_token(&name) {
        let shown = Quoted(&name);
        return report.refuse(
            at,
            format_args!("{shown} is not the name of a header field, write letters, digits or -"),
        );
    }
    name.make_ascii_lowercase();
    Some(name)
}

/// The value of a header field, RFC 9110 section 5.5, without space around it.
pub(super) fn header_value(value: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    if value.bytes().any(|b| b != b'\t' && (b < 0x20 || b == 0x7f)) {
        return report.refuse(
            at,
            "is not the value of a header field: it holds control characters",
        );
    }
    let trimmed = value.trim_matches([' ', '\t']);
    Some(if trimmed.len() == value.len() {
        value
    } else {
        trimmed.to_owned()
    })
}

/// A method, RFC 9110 section 9.1.
pub(super) fn method(method: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    if is_token(&method) {
        return Some(method);
    }
    report.refuse(at, format_args!("{} is not a method", Quoted(&method)))
}

/// True for an RFC 9110 token of sensible length.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A path as it is compared with or put into a request: absolute, without query or fragment.
pub(super) fn path(path: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    if !path.starts_with('/') {
        let shown = Quoted(&path);
        return report.refuse(at, format_args!("{shown} does not start with /"));
    }
    let is_bad = |b: u8| b <= 0x20 || b == 0x7f || b == b'?' || b == b'#';
    if path.bytes().any(is_bad) {
        let shown = Quoted(&path);
        return report.refuse(
            at,
            format_args!("{shown} holds a space, ?, # or a control character"),
        );
    }
    Some(path)
}

/// A prefix of path segments, without slashes at its end unless it is `/` itself.
pub(super) fn path_prefix(prefix: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    let mut prefix = path(prefix, at, report)?;
    prefix.truncate(prefix.trim_end_matches('/').len().max(1));
    Some(prefix)
}

/// A regular expression.
pub(super) fn pattern(source: &str, at: &At<'_>, report: &mut Report) -> Option<Pattern> {
    match report.pattern(source) {
        Ok(pattern) => Some(pattern),
        Err(error) => report.refuse(at, format_args!("{} {error}", Quoted(source))),
    }
}

/// A `namespace/name` reference.
pub(super) fn reference(text: &str, at: &At<'_>, report: &mut Report) -> Option<Arc<str>> {
    if is_reference(text) {
        return Some(report.share(text));
    }
    let shown = Quoted(text);
    report.refuse(
        at,
        format_args!("{shown} is not a reference, write namespace/name"),
    )
}

/// A `namespace/name` reference that may be empty, kept as text.
pub(super) fn optional_reference(
    text: String,
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<String> {
    if !text.is_empty() {
        reference(&text, &at.field(name), report)?;
    }
    Some(text)
}

fn is_reference(text: &str) -> bool {
    text.split_once('/').is_some_and(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    })
}

/// An absolute URL with one of the schemes; may be empty.
pub(super) fn optional_url(
    url: String,
    schemes: &[&str],
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<String> {
    let is_good = url.is_empty()
        || schemes.iter().any(|scheme| {
            url.strip_prefix(scheme)
                .and_then(|rest| rest.strip_prefix("://"))
                .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        }) && url.bytes().all(|b| b.is_ascii_graphic());
    if is_good {
        return Some(url);
    }
    // Not shown: a URL may carry a password.
    let schemes = schemes.join(" or ");
    report.refuse(
        &at.field(name),
        format_args!("is not an absolute URL with scheme {schemes}"),
    )
}

/// Nothing for the empty text.
pub(super) fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A namespace and name as one key, shared.
pub(super) fn object_key(
    namespace: &str,
    name: &str,
    kind: &'static str,
    report: &mut Report,
) -> Option<Arc<str>> {
    let key = report.share_written(format_args!("{namespace}/{name}"));
    let is_good = |part: &str| {
        !part.is_empty() && !part.contains('/') && part.bytes().all(|b| b.is_ascii_graphic())
    };
    if is_good(namespace) && is_good(name) {
        return Some(key);
    }
    let at = At::object(kind, &key);
    report.refuse(&at, "has no proper namespace and name")
}

/// Text put before a token in a header field; space at its end counts.
pub(super) fn header_prefix(prefix: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    if prefix.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return report.refuse(at, "holds control characters");
    }
    Some(prefix)
}

/// The name of a header field, or a whole `name: value` line.
pub(super) fn header_line(line: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    let (name, text) = line.split_once(':').unwrap_or((&line, ""));
    header_name(name.to_owned(), at, report)?;
    header_value(text.to_owned(), at, report)?;
    Some(line)
}
