//! A plugin that takes memory with every request and gives none back: it meets the end of its memory.

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
        Some(Box::new(Bad))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Bad;

impl Context for Bad {}

impl HttpContext for Bad {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let piece = vec![1u8; 1024 * 1024];
        std::mem::forget(std::hint::black_box(piece));
        Action::Continue
    }
}
