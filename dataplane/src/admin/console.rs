//! The console: a page that asks this API, with its script and its look.
//!
//! The files are part of the program and hold nothing of the configuration, so they are served without
//! the token; what they show they ask for with it. The page may load nothing from elsewhere, run no
//! script that stands in the markup, and be framed by nobody.

use http::{HeaderValue, StatusCode, header};

use super::Context;
use super::answer::Answer;

/// Everything from this address, nothing inline, no frames, no forms that go anywhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const CSS: &str = "text/css; charset=utf-8";
pub(super) const SCRIPT: &str = "text/javascript; charset=utf-8";

/// `/console`.
pub(super) fn page(_: &Context) -> Answer {
    asset(HTML, include_str!("console/index.html"))
}

/// Its look.
pub(super) fn look(_: &Context) -> Answer {
    asset(CSS, include_str!("console/console.css"))
}

/// What it does.
pub(super) fn script(_: &Context) -> Answer {
    asset(SCRIPT, include_str!("console/console.js"))
}

/// How it reads metrics.
pub(super) fn reader(_: &Context) -> Answer {
    asset(SCRIPT, include_str!("console/metrics.js"))
}

fn asset(content_type: &'static str, text: &'static str) -> Answer {
    Answer::whole(StatusCode::OK, content_type, text.to_owned())
        .with(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        )
        .with(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        )
        .with(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))
}
