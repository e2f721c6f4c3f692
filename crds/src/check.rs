//! An object held against the schema and the rules of its kind, without an API server.
//!
//! The shim asks this about manifests in folders; the API server asks the same schema and the same
//! rules. Types and unknown fields are for the reader of the YAML to refuse.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use kube::{CustomResourceExt, Resource};
use regex::Regex;
use serde::Serialize;
use serde_json::Value;

use crate::rule::Faults;
use crate::{
    AIService, BackendLBPolicy, DirectResponse, RoutePolicy, SecurityPolicy, TokenPolicy,
    WasmPlugin, ai_service, backend_lb_policy, direct_response, route_policy, security_policy,
    token_policy, wasm_plugin,
};

pub use crate::rule::{Fault, Rule};

/// A kind that can be checked.
pub trait Checked: Resource<DynamicType = ()> + CustomResourceExt + Serialize {
    /// Notes what its rules find.
    #[doc(hidden)]
    fn rules(&self) -> Vec<Fault>;

    /// The rules that its schema carries.
    fn all_rules() -> &'static [Rule];
}

macro_rules! checked {
    ($($kind:ty: $module:ident;)*) => {
        $(impl Checked for $kind {
            fn rules(&self) -> Vec<Fault> {
                let mut faults = Faults::default();
                $module::rules(&self.spec, &mut faults);
                faults.0
            }

            fn all_rules() -> &'static [Rule] {
                $module::all_rules()
            }
        })*
    };
}

checked! {
    AIService: ai_service;
    BackendLBPolicy: backend_lb_policy;
    DirectResponse: direct_response;
    RoutePolicy: route_policy;
    SecurityPolicy: security_policy;
    TokenPolicy: token_policy;
    WasmPlugin: wasm_plugin;
}

/// What is wrong with `object`; nothing for one that the API server would take.
pub fn faults<T: Checked>(object: &T) -> Vec<Fault> {
    let mut faults = Vec::new();
    let value = serde_json::to_value(object).unwrap_or_default();
    let schema = schema::<T>();
    within(
        &schema["properties"]["spec"],
        &value["spec"],
        "spec",
        &mut faults,
    );
    faults.extend(object.rules());
    faults
}

/// The schema of a kind; made once, for it takes a while.
fn schema<T: Checked>() -> &'static Value {
    static SCHEMAS: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    static NONE: Value = Value::Null;
    let all = SCHEMAS.get_or_init(|| {
        let definitions = crate::manifest::definitions().into_iter();
        let schemas = definitions.filter_map(|definition| {
            let version = definition.spec.versions.into_iter().next()?;
            let schema = version.schema?.open_api_v3_schema?;
            Some((
                definition.spec.names.kind,
                serde_json::to_value(schema).ok()?,
            ))
        });
        schemas.collect()
    });
    all.get(&*T::kind(&())).unwrap_or(&NONE)
}

/// Ranges, lengths, patterns and enumerations; the text of a value is never shown, it may be secret.
fn within(schema: &Value, value: &Value, path: &str, faults: &mut Vec<Fault>) {
    let mut refuse = |message: String| {
        faults.push(Fault {
            path: path.to_owned(),
            message,
        });
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if bound("minimum").is_some_and(|min| number < min) {
                refuse(format!("{number} is less than {}", schema["minimum"]));
            }
            if bound("maximum").is_some_and(|max| number > max) {
                refuse(format!("{number} is more than {}", schema["maximum"]));
            }
        }
        Value::String(text) => {
            let length = text.chars().count();
            if let Some(message) =
                length_fault(schema, ["minLength", "maxLength"], length, "characters")
            {
                refuse(message);
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
            {
                refuse(format!("does not have the form {pattern}"));
            }
            let allowed = schema.get("enum").and_then(Value::as_array);
            if let Some(allowed) = allowed
                && !allowed.contains(value)
            {
                let allowed: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
                refuse(format!("is not known, write one of {}", allowed.join(", ")));
            }
        }
        Value::Array(items) => {
            if let Some(message) =
                length_fault(schema, ["minItems", "maxItems"], items.len(), "items")
            {
                refuse(message);
            }
            for (index, item) in items.iter().enumerate() {
                within(&schema["items"], item, &format!("{path}[{index}]"), faults);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let known = schema
                    .get("properties")
                    .and_then(|properties| properties.get(name));
                if let Some(known) = known.or_else(|| schema.get("additionalProperties")) {
                    within(known, field, &format!("{path}.{name}"), faults);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn length_fault(schema: &Value, names: [&str; 2], length: usize, unit: &str) -> Option<String> {
    let [min, max] = names.map(|name| schema.get(name).and_then(Value::as_u64));
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    match (min, max) {
        (Some(min), _) if length < min => Some(format!("has {length} {unit}, {min} are needed")),
        (_, Some(max)) if length > max => Some(format!("has {length} {unit}, {max} are allowed")),
        _ => None,
    }
}
