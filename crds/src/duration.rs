//! Times as users write them: `10s`, `1m30s`, `1.5h`, `250ms`.
//!
//! A superset of Gateway API's durations (GEP-2257), as the existing resources use it. The schema holds
//! the form; [`Duration::read`] gives the time.

use std::borrow::Cow;
use std::fmt;
use std::time;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A time as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub String);

/// The form that the API server holds it to.
pub const PATTERN: &str = r"^([0-9]{1,7}(\.[0-9]{1,9})?(h|m|s|ms))+$";

impl Duration {
    /// The time; nothing when the text has another form or is longer than anyone waits.
    pub fn read(&self) -> Option<time::Duration> {
        let mut rest = self.0.as_str();
        let mut sum = time::Duration::ZERO;
        if rest.is_empty() || rest.len() > 32 {
            return None;
        }
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(end);
            let (seconds, tail) = match tail.as_bytes() {
                [b'm', b's', ..] => (0.001, &tail[2..]),
                [b'h', ..] => (3600.0, &tail[1..]),
                [b'm', ..] => (60.0, &tail[1..]),
                [b's', ..] => (1.0, &tail[1..]),
                _ => return None,
            };
            let number: f64 = number.parse().ok()?;
            let part = time::Duration::try_from_secs_f64(number * seconds).ok()?;
            // Fractions of a microsecond are rounding.
            let micros = u64::try_from(part.as_nanos().div_ceil(1000)).ok()?;
            let micros = micros
                - u64::from(part.subsec_nanos() % 1000 > 0 && part.subsec_nanos() % 1000 < 500);
            sum = sum.checked_add(time::Duration::from_micros(micros))?;
            rest = tail;
        }
        Some(sum)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 32, "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        let millis = |text: &str| {
            Duration(text.to_owned())
                .read()
                .map(|time| time.as_millis())
        };
        for (text, expected) in [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("0.1s", Some(100)),
            ("1h0.5s", Some(3_600_500)),
            ("", None),
            ("10", None),
            ("s", None),
            ("10d", None),
            ("1..5s", None),
            ("-1s", None),
            ("999999999999999999999999999999h", None),
        ] {
            assert_eq!(millis(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_the_form_allows_can_be_read() {
        let form = regex::Regex::new(PATTERN).unwrap();
        for text in ["1s", "9999999h", "0.000000001ms", "1h1m1s1ms", "5m0.25s"] {
            assert!(form.is_match(text), "{text}");
            assert!(Duration(text.to_owned()).read().is_some(), "{text}");
        }
        for text in ["1", "1d", "", "s", "1s ", "+1s"] {
            assert!(!form.is_match(text), "{text}");
        }
    }
}
