//! What a route's annotations say of its own observation: which of its requests are traced.
//!
//! Read when the route is compiled, so that a request meets numbers and no texts. A value that
//! cannot be understood counts as not said: the control plane tells the route's owner, and the data
//! plane goes by its own settings.

use dataplane_telemetry::trace::Ratio;
use ir::resource::Metadata;

/// The share of a route's traces that are recorded, 0 to 1.
const TRACE_RATIO: &str = "gateway.nantian.dev/tracing-sample-ratio";

/// The share of traces that the route asks for.
pub(crate) fn trace_ratio(annotations: &Metadata) -> Option<Ratio> {
    share(annotations.get(TRACE_RATIO)?).map(Ratio::new)
}

fn share(written: &str) -> Option<f64> {
    let share: f64 = written.trim().parse().ok()?;
    (0.0..=1.0).contains(&share).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_share_or_nothing() {
        for (written, expected) in [
            ("0", Some(0.0)),
            ("0.25", Some(0.25)),
            (" 1 ", Some(1.0)),
            ("1.5", None),
            ("-1", None),
            ("NaN", None),
            ("half", None),
            ("", None),
        ] {
            let annotations = [(TRACE_RATIO.to_owned(), written.to_owned())].into();
            assert_eq!(
                trace_ratio(&annotations),
                expected.map(Ratio::new),
                "{written}"
            );
        }
        assert_eq!(trace_ratio(&Metadata::default()), None);
    }
}
