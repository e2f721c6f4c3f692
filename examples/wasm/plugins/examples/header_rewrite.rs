//! Adds a header field to requests and to responses, and takes one away.
//!
//! Settings: `{"request": {"x-stamp": "one"}, "response": {"x-served-by": "plugin"}, "remove": ["server"]}`.

use example_plugins::settings;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use serde_json::Value;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root(Value::Null)));
}}

struct Root(Value);

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        match settings(self.get_plugin_configuration()) {
            Ok(found) => self.0 = found,
            Err(error) => {
                log::error!("the settings are no JSON: {error}");
                return false;
            }
        }
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stamp(self.0.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stamp(Value);

impl Stamp {
    fn fields(&self, of: &str) -> Vec<(String, String)> {
        let fields = self.0.get(of).and_then(Value::as_object);
        let fields = fields.into_iter().flatten();
        fields
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect()
    }
}

impl Context for Stamp {}

impl HttpContext for Stamp {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        for (name, value) in self.fields("request") {
            self.set_http_request_header(&name, Some(&value));
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        for (name, value) in self.fields("response") {
            self.set_http_response_header(&name, Some(&value));
        }
        let remove = self.0.get("remove").and_then(Value::as_array);
        for name in remove.into_iter().flatten().filter_map(Value::as_str) {
            self.set_http_response_header(name, None);
        }
        Action::Continue
    }
}
