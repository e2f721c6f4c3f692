//! What a route's annotations say of its own observation: its lines of the access log, its traces.
//!
//! Read when the route is compiled, so that a request meets numbers and no texts. A value that
//! cannot be understood counts as not said: the control plane tells the route's owner, and the data
//! plane goes by its own settings.

use std::sync::Arc;

use dataplane_telemetry::access_log::{Override, Style, Template};
use dataplane_telemetry::trace::Ratio;
use ir::resource::Metadata;

/// The share of a route's traces that are recorded, 0 to 1.
const TRACE_RATIO: &str = "gateway.nantian.dev/tracing-sample-ratio";

/// The share of traces that the route asks for.
pub(crate) fn trace_ratio(annotations: &Metadata) -> Option<Ratio> {
    share(annotations.get(TRACE_RATIO)?).map(Ratio::new)
}

/// What the route says of its lines; nothing for most. Annotations begin with `prefix`.
pub(crate) fn access_log(annotations: &Metadata, prefix: &str) -> Option<Arc<Override>> {
    if annotations.is_empty() {
        return None;
    }
    let said = |name: &str| {
        annotations
            .get(&format!("{prefix}{name}"))
            .map(|it| it.trim())
    };
    let format = said("format").and_then(|format| Template::parse(format).ok());
    let style = match (said("mode"), format) {
        (Some("json"), _) => Some(Style::Json),
        (_, Some(format)) => Some(Style::Text(Arc::new(format))),
        (Some("text"), None) => Some(Style::Text(Arc::default())),
        _ => None,
    };
    let own = Override {
        is_enabled: said("enabled").and_then(|it| it.parse().ok()),
        sample_rate: said("sample-rate").and_then(share),
        style,
    };
    (own != Override::default()).then(|| Arc::new(own))
}

fn share(written: &str) -> Option<f64> {
    let share: f64 = written.trim().parse().ok()?;
    (0.0..=1.0).contains(&share).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_says_what_its_lines_are_like() {
        let text = |format: &str| Some(Style::Text(Arc::new(Template::parse(format).unwrap())));
        let own = |is_enabled, sample_rate, style| Override {
            is_enabled,
            sample_rate,
            style,
        };
        let cases: [(&[(&str, &str)], Override); 9] = [
            (&[], Override::default()),
            (&[("enabled", "false")], own(Some(false), None, None)),
            (&[("enabled", "no")], Override::default()),
            (&[("sample-rate", "0.1")], own(None, Some(0.1), None)),
            (&[("sample-rate", "2")], Override::default()),
            (&[("mode", "json")], own(None, None, Some(Style::Json))),
            (&[("format", "%PATH%")], own(None, None, text("%PATH%"))),
            (&[("format", "%NOPE%")], Override::default()),
            (
                &[
                    ("mode", "json"),
                    ("format", "%PATH%"),
                    ("path", "/etc/passwd"),
                ],
                own(None, None, Some(Style::Json)),
            ),
        ];
        for (said, expected) in cases {
            let annotations: Metadata = said
                .iter()
                .map(|(name, value)| (format!("x/log-{name}"), (*value).to_owned()))
                .collect();
            let found = access_log(&annotations, "x/log-");
            let expected = (expected != Override::default()).then_some(expected);
            assert_eq!(found.as_deref(), expected.as_ref(), "{said:?}");
            assert_eq!(access_log(&annotations, "other/"), None);
        }
    }

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
