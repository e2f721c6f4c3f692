//! What the example plugins share: reading their settings, which are JSON.
//!
//! Every plugin is one file in `examples/` and uses nothing of the gateway, only the public crate
//! `proxy-wasm`: it runs in any host of that ABI.

use serde_json::Value;

/// The settings a plugin was given; none are an empty object.
pub fn settings(bytes: Option<Vec<u8>>) -> Result<Value, String> {
    match bytes {
        None => Ok(Value::Object(serde_json::Map::new())),
        Some(bytes) if bytes.is_empty() => settings(None),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
    }
}

/// A text of the settings, or what stands for it.
pub fn text(settings: &Value, name: &str, default: &str) -> String {
    let found = settings.get(name).and_then(Value::as_str);
    found.unwrap_or(default).to_owned()
}
