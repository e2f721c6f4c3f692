//! The Prometheus text format, version 0.0.4, and OpenMetrics 1.0, written by hand.
//!
//! Called by the groups of metrics while a scrape is answered. The two differ in what they call a
//! counter in its `# TYPE` line, in how a bucket's bound is written, and in that only the second has
//! exemplars and an end. This module knows no metric.

use std::fmt::Write as _;

use super::family::{self, Family, Kind};
use super::instrument::{BOUNDS_NS, Distribution};
use crate::trace_context::trace_text;

/// In which of its forms a scrape is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format.
    #[default]
    Text,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// The content type of what is written.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One request that stands for those of its bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exemplar {
    pub(super) trace_id: u128,
    pub(super) seconds: f64,
    /// Seconds since 1970.
    pub(super) at: f64,
}

/// Appends families and their samples to a text.
pub(super) struct Exposition<'a> {
    out: &'a mut String,
    format: Format,
}

impl<'a> Exposition<'a> {
    pub(super) fn new(out: &'a mut String, format: Format) -> Self {
        Self { out, format }
    }

    /// Opens a family; its samples follow before the next one is opened.
    pub(super) fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family {
            name, kind, help, ..
        } = family;
        let (named, kind) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => {
                let stripped = name.strip_suffix("_total").unwrap_or(name);
                // Where the rest is the name of another family, it cannot be that of a counter.
                match family::is_declared(stripped) {
                    true => (*name, "unknown"),
                    false => (stripped, kind.as_str()),
                }
            }
            _ => (*name, kind.as_str()),
        };
        self.out.push_str("# HELP ");
        self.out.push_str(named);
        self.out.push(' ');
        let quotes = match self.format {
            Format::Text => Quotes::Plain,
            Format::OpenMetrics => Quotes::Escaped,
        };
        escape(self.out, help, quotes);
        self.out.push_str("\n# TYPE ");
        self.out.push_str(named);
        self.out.push(' ');
        self.out.push_str(kind);
        self.out.push('\n');
        Samples {
            out: self.out,
            format: self.format,
            family,
        }
    }
}

/// Writes the samples of one family.
pub(super) struct Samples<'a> {
    out: &'a mut String,
    format: Format,
    family: &'static Family,
}

impl Samples<'_> {
    /// One counter or gauge; `labels` are the values for the family's label names, in order.
    pub(super) fn sample(&mut self, labels: &[&str], value: impl Into<Value>) -> &mut Self {
        debug_assert!(self.family.kind != Kind::Histogram, "{}", self.family.name);
        self.line("", labels, None, value.into());
        self.end(None);
        self
    }

    /// One histogram in seconds, its buckets made cumulative.
    pub(super) fn histogram(&mut self, labels: &[&str], content: &Distribution) -> &mut Self {
        self.scaled(labels, content, 1e9)
    }

    /// One histogram in units of so many nanoseconds.
    pub(super) fn scaled(
        &mut self,
        labels: &[&str],
        content: &Distribution,
        unit: f64,
    ) -> &mut Self {
        let bounds = BOUNDS_NS.iter().map(|ns| *ns as f64 / unit);
        let buckets = bounds.chain([f64::INFINITY]).zip(content.buckets);
        self.buckets(labels, buckets, content.sum_ns as f64 / unit)
    }

    /// One histogram over buckets of its own: the upper bound of each, and what it alone holds.
    pub(super) fn buckets(
        &mut self,
        labels: &[&str],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        sum: f64,
    ) -> &mut Self {
        debug_assert!(self.family.kind == Kind::Histogram, "{}", self.family.name);
        let mut count = 0;
        for (bound, bucket) in buckets {
            count += bucket;
            self.line("_bucket", labels, Some(bound), Value::Whole(count));
            self.end(None);
        }
        self.line("_sum", labels, None, Value::Real(sum));
        self.end(None);
        self.line("_count", labels, None, Value::Whole(count));
        self.end(None);
        self
    }

    /// One histogram with fewer buckets, those whose bound is in `bounds`, in units of so many
    /// nanoseconds; each with the exemplar of its place.
    pub(super) fn coarse(
        &mut self,
        labels: &[&str],
        content: &Distribution,
        (bounds, unit): (&[u64], f64),
        exemplars: &[Option<Exemplar>],
    ) -> &mut Self {
        debug_assert!(self.family.kind == Kind::Histogram, "{}", self.family.name);
        let (mut count, mut place) = (0, 0);
        for (at, bucket) in content.buckets.iter().enumerate() {
            count += bucket;
            let bound = BOUNDS_NS.get(at);
            if bound.is_some_and(|bound| !bounds.contains(bound)) {
                continue;
            }
            let bound = bound.map_or(f64::INFINITY, |ns| *ns as f64 / unit);
            self.line("_bucket", labels, Some(bound), Value::Whole(count));
            self.end(exemplars.get(place).copied().flatten());
            place += 1;
        }
        self.line(
            "_sum",
            labels,
            None,
            Value::Real(content.sum_ns as f64 / unit),
        );
        self.end(None);
        self.line("_count", labels, None, Value::Whole(count));
        self.end(None);
        self
    }

    /// The end of a line, behind what stands for its bucket.
    fn end(&mut self, exemplar: Option<Exemplar>) {
        if let (Format::OpenMetrics, Some(exemplar)) = (self.format, exemplar) {
            let trace_id = trace_text(exemplar.trace_id);
            self.out.push_str(" # {trace_id=\"");
            self.out
                .push_str(str::from_utf8(&trace_id).unwrap_or_default());
            // Writing to a String cannot fail.
            let _ = write!(self.out, "\"}} {} {:.3}", exemplar.seconds, exemplar.at);
        }
        self.out.push('\n');
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
            if self.format == Format::OpenMetrics && bound.fract() == 0.0 {
                // There a bound is written as no whole number.
                self.out.push_str(".0");
            }
            self.out.push('"');
            separator = ',';
        }
        self.out.push_str(if separator == '{' { " " } else { "} " });
        value.write(self.out);
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
        Exposition::new(&mut text, Format::Text)
            .family(&PLAIN)
            .sample(&[], 7_u64);
        assert_eq!(
            text,
            "# HELP a_total A \"quoted\" help\\nwith \\\\.\n# TYPE a_total counter\na_total 7\n"
        );
    }

    #[test]
    fn openmetrics_names_a_counter_without_its_suffix_and_has_exemplars() {
        let mut text = String::new();
        let mut out = Exposition::new(&mut text, Format::OpenMetrics);
        out.family(&PLAIN).sample(&[], 7_u64);
        let mut content = Distribution::default();
        content.buckets[1] = 2;
        let exemplar = Exemplar {
            trace_id: 0xab,
            seconds: 0.0007,
            at: 1_700_000_000.5,
        };
        let bounds = [1_000_000, 1_000_000_000];
        out.family(&DURATION)
            .coarse(&["l"], &content, (&bounds, 1e9), &[Some(exemplar), None]);
        let expected = [
            "# HELP a A \\\"quoted\\\" help\\nwith \\\\.\n# TYPE a counter\na_total 7\n",
            "c_seconds_bucket{x=\"l\",le=\"0.001\"} 2 # {trace_id=\"000000000000000000000000000000ab\"} \
             0.0007 1700000000.500\n",
            "c_seconds_bucket{x=\"l\",le=\"1.0\"} 2\nc_seconds_bucket{x=\"l\",le=\"+Inf\"} 2\n",
        ];
        for part in expected {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.matches("_bucket").count(), 3);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = String::new();
        Exposition::new(&mut text, Format::Text)
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
        Exposition::new(&mut text, Format::Text)
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
