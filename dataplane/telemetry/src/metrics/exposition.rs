//! The Prometheus text format, version 0.0.4, written by hand.
//!
//! Called by the groups of metrics while a scrape is answered. Client libraries write OpenMetrics,
//! whose `# TYPE` line names a counter without `_total`; under the content type we promise, a
//! scraper would then know no type for any of our counters. This module knows no metric.

use std::fmt::Write as _;

use super::family::{Family, Kind};
use super::instrument::{BOUNDS_NS, Distribution};

/// Appends families and their samples to a text.
pub(super) struct Exposition<'a> {
    out: &'a mut String,
}

impl<'a> Exposition<'a> {
    pub(super) fn new(out: &'a mut String) -> Self {
        Self { out }
    }

    /// Opens a family; its samples follow before the next one is opened.
    pub(super) fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family {
            name, kind, help, ..
        } = family;
        self.out.push_str("# HELP ");
        self.out.push_str(name);
        self.out.push(' ');
        escape(self.out, help, Quotes::Plain);
        self.out.push_str("\n# TYPE ");
        self.out.push_str(name);
        self.out.push(' ');
        self.out.push_str(kind.as_str());
        self.out.push('\n');
        Samples {
            out: self.out,
            family,
        }
    }
}

/// Writes the samples of one family.
pub(super) struct Samples<'a> {
    out: &'a mut String,
    family: &'static Family,
}

impl Samples<'_> {
    /// One counter or gauge; `labels` are the values for the family's label names, in order.
    pub(super) fn sample(&mut self, labels: &[&str], value: impl Into<Value>) -> &mut Self {
        debug_assert!(self.family.kind != Kind::Histogram, "{}", self.family.name);
        self.line("", labels, None, value.into());
        self
    }

    /// One histogram, its buckets made cumulative.
    pub(super) fn histogram(&mut self, labels: &[&str], content: &Distribution) -> &mut Self {
        debug_assert!(self.family.kind == Kind::Histogram, "{}", self.family.name);
        let bounds = BOUNDS_NS.iter().map(|ns| seconds(*ns));
        let buckets = bounds.chain([f64::INFINITY]).zip(content.buckets);
        self.buckets(labels, buckets, seconds(content.sum_ns))
    }

    /// One histogram over buckets of its own: the upper bound of each, and what it alone holds.
    pub(super) fn buckets(
        &mut self,
        labels: &[&str],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        sum: f64,
    ) -> &mut Self {
        let mut count = 0;
        for (bound, bucket) in buckets {
            count += bucket;
            self.line("_bucket", labels, Some(bound), Value::Whole(count));
        }
        self.line("_sum", labels, None, Value::Real(sum));
        self.line("_count", labels, None, Value::Whole(count));
        self
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<f64>, value: Value) {
        debug_assert_eq!(
            labels.len(),
            self.family.labels.len(),
            "{}",
            self.family.name
        );
        self.out.push_str(self.family.name);
        self.out.push_str(suffix);
        let mut separator = '{';
        for (name, text) in self.family.labels.iter().zip(labels) {
            self.out.push(separator);
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(self.out, text, Quotes::Escaped);
            self.out.push('"');
            separator = ',';
        }
        if let Some(bound) = bound {
            self.out.push(separator);
            self.out.push_str("le=\"");
            Value::Real(bound).write(self.out);
            self.out.push('"');
            separator = ',';
        }
        self.out.push_str(if separator == '{' { " " } else { "} " });
        value.write(self.out);
        self.out.push('\n');
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Whole(u64),
    Signed(i64),
    Real(f64),
}

impl Value {
    fn write(self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Whole(value) => write!(out, "{value}"),
            Self::Signed(value) => write!(out, "{value}"),
            Self::Real(value) if value == f64::INFINITY => out.write_str("+Inf"),
            Self::Real(value) => write!(out, "{value}"),
        };
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// Nanoseconds as seconds; loses digits only past 104 days.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Plain,
    Escaped,
}

fn escape(out: &mut String, text: &str, quotes: Quotes) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes == Quotes::Escaped => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLAIN: Family = Family {
        name: "a_total",
        kind: Kind::Counter,
        labels: &[],
        help: "A \"quoted\" help\nwith \\.",
    };
    static LABELLED: Family = Family {
        name: "b",
        kind: Kind::Gauge,
        labels: &["x", "y"],
        help: "B.",
    };
    static DURATION: Family = Family {
        name: "c_seconds",
        kind: Kind::Histogram,
        labels: &["x"],
        help: "C.",
    };

    #[test]
    fn samples_carry_the_name_of_their_type_line() {
        let mut text = String::new();
        Exposition::new(&mut text).family(&PLAIN).sample(&[], 7_u64);
        assert_eq!(
            text,
            "# HELP a_total A \"quoted\" help\\nwith \\\\.\n# TYPE a_total counter\na_total 7\n"
        );
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = String::new();
        Exposition::new(&mut text)
            .family(&LABELLED)
            .sample(&["q\"\\\n", "ü"], -1_i64)
            .sample(&["", ""], 0.25);
        assert!(text.ends_with("b{x=\"q\\\"\\\\\\n\",y=\"ü\"} -1\nb{x=\"\",y=\"\"} 0.25\n"));
    }

    #[test]
    fn buckets_are_cumulative_and_end_at_the_count() {
        let mut content = Distribution {
            sum_ns: 1_500_000_000,
            ..Distribution::default()
        };
        content.buckets[0] = 2;
        content.buckets[10] = 1;
        content.buckets[15] = 4;
        let mut text = String::new();
        Exposition::new(&mut text)
            .family(&DURATION)
            .histogram(&["l"], &content);
        let expected = [
            "c_seconds_bucket{x=\"l\",le=\"0.0005\"} 2\n",
            "c_seconds_bucket{x=\"l\",le=\"0.5\"} 2\n",
            "c_seconds_bucket{x=\"l\",le=\"1\"} 3\n",
            "c_seconds_bucket{x=\"l\",le=\"30\"} 3\n",
            "c_seconds_bucket{x=\"l\",le=\"+Inf\"} 7\nc_seconds_sum{x=\"l\"} 1.5\nc_seconds_count{x=\"l\"} 7\n",
        ];
        for part in expected {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
