//! Replaces a word in the bodies of requests with stars of the same length.
//!
//! Settings: `{"word": "secret"}`. The whole body is waited for, because the word may lie across two
//! chunks; the gateway bounds how much that may be.

use example_plugins::{settings, text};
use memchr::memmem::Finder;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root(Finder::new("").into_owned())));
}}

struct Root(Finder<'static>);

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let Ok(found) = settings(self.get_plugin_configuration()) else {
            return false;
        };
        self.0 = Finder::new(&text(&found, "word", "secret")).into_owned();
        !self.0.needle().is_empty()
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Redactor(self.0.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Redactor(Finder<'static>);

impl Context for Redactor {}

impl HttpContext for Redactor {
    fn on_http_request_body(&mut self, _: usize, is_last: bool) -> Action {
        if !is_last {
            return Action::Pause;
        }
        self.redact();
        Action::Continue
    }

    // Where trailers follow, no part of the body is the last.
    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.redact();
        Action::Continue
    }
}

impl Redactor {
    fn redact(&self) {
        let Some(mut body) = self.get_http_request_body(0, usize::MAX) else {
            return;
        };
        let mut is_changed = false;
        let mut at = 0;
        while let Some(found) = self.0.find(&body[at..]) {
            at += found;
            body[at..at + self.0.needle().len()].fill(b'*');
            is_changed = true;
        }
        if is_changed {
            self.set_http_request_body(0, usize::MAX, &body);
        }
    }
}
