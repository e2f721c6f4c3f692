//! Writes the bodies of text responses in upper case, chunk by chunk as they come.
//!
//! It has no settings. A length that was announced stays right, because no byte is added.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Response { is_text: false }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Response {
    is_text: bool,
}

impl Context for Response {}

impl HttpContext for Response {
    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        let kind = self.get_http_response_header("content-type");
        self.is_text = kind.is_some_and(|kind| kind.starts_with("text/"));
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, _: bool) -> Action {
        if self.is_text
            && let Some(mut body) = self.get_http_response_body(0, size)
        {
            body.make_ascii_uppercase();
            self.set_http_response_body(0, size, &body);
        }
        Action::Continue
    }
}
