//! Writes the bodies of responses in upper case, chunk by chunk as they come.
//!
//! Settings: `{"type": "text/"}`, with what a content type must begin. A length that was announced stays
//! right, because no byte is added.

use example_plugins::{settings, text};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root(String::new())));
}}

struct Root(String);

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let Ok(found) = settings(self.get_plugin_configuration()) else {
            return false;
        };
        self.0 = text(&found, "type", "text/");
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Response {
            wanted: self.0.clone(),
            is_wanted: false,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Response {
    wanted: String,
    is_wanted: bool,
}

impl Context for Response {}

impl HttpContext for Response {
    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        let kind = self.get_http_response_header("content-type");
        self.is_wanted = kind.is_some_and(|kind| kind.starts_with(&self.wanted));
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, _: bool) -> Action {
        if self.is_wanted
            && let Some(mut body) = self.get_http_response_body(0, size)
        {
            upper(&mut body);
            self.set_http_response_body(0, size, &body);
        }
        Action::Continue
    }
}

/// In blocks: the host may interrupt a plugin wherever a loop turns, and asks there whether to do so.
fn upper(body: &mut [u8]) {
    let (blocks, rest) = body.as_chunks_mut::<128>();
    for block in blocks {
        block.make_ascii_uppercase();
    }
    rest.make_ascii_uppercase();
}
