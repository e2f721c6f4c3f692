//! Lets in who shows a token that was made with a shared key, much like a JWT with HS256.
//!
//! Settings: `{"key": "…"}`. The field is `Authorization: Bearer NAME.SIGNATURE`, the signature being
//! HMAC-SHA256 of the name in hexadecimal. Backends are told the name by `X-User`.

use example_plugins::{settings, text};
use hmac::{Hmac, Mac};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use sha2::Sha256;

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
        self.0 = text(&found, "key", "");
        // Without a key everybody could make tokens.
        !self.0.is_empty()
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Door(self.0.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Door(String);

impl Door {
    fn user(&self) -> Option<String> {
        let field = self.get_http_request_header("authorization")?;
        let (name, signature) = field.strip_prefix("Bearer ")?.rsplit_once('.')?;
        let signature = unhex(signature)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).ok()?;
        mac.update(name.as_bytes());
        mac.verify_slice(&signature).ok()?;
        Some(name.to_owned())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

impl Context for Door {}

impl HttpContext for Door {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        match self.user() {
            Some(user) => {
                self.set_http_request_header("x-user", Some(&user));
                self.set_http_request_header("authorization", None);
                Action::Continue
            }
            None => {
                let fields = vec![("www-authenticate", "Bearer")];
                self.send_http_response(401, fields, Some(b"a token is needed\n"));
                Action::Pause
            }
        }
    }
}
