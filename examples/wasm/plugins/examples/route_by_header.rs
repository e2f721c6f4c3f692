//! Sends requests elsewhere by a header field: the path is changed before the route is chosen.
//!
//! Settings: `{"header": "x-beta", "prefix": "/beta"}`. Only a plugin of a Gateway or listener runs
//! early enough for that.

use example_plugins::{settings, text};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Clone, Default)]
struct Root {
    header: String,
    prefix: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let Ok(found) = settings(self.get_plugin_configuration()) else {
            return false;
        };
        self.header = text(&found, "header", "x-beta");
        self.prefix = text(&found, "prefix", "/beta");
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request(self.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Request(Root);

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if self.get_http_request_header(&self.0.header).is_some() {
            let path = self.get_http_request_header(":path").unwrap_or_default();
            let path = format!("{}{path}", self.0.prefix);
            self.set_http_request_header(":path", Some(&path));
        }
        Action::Continue
    }
}
