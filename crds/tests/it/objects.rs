//! Objects of `tests/data`: the good are taken, the bad refused with the words that they name.
//!
//! The same files are given to an API server by the tests of `e2e`, so both judge alike.

use std::fs;
use std::path::Path;

use crds::check::{Checked, faults};
use serde::de::DeserializeOwned;

/// The documents of a file, each with the words of its `# expect:`.
fn documents(file: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(file);
    let text = fs::read_to_string(path).unwrap();
    let documents = text.split("---\n").map(|text| {
        let expected = text
            .lines()
            .find_map(|line| line.strip_prefix("# expect: "));
        (expected.unwrap_or_default().to_owned(), text.to_owned())
    });
    documents.collect()
}

/// What is wrong with the object, each as `path: message`.
fn refusals<T: Checked + DeserializeOwned>(text: &str) -> Vec<String> {
    match serde_yaml::from_str::<T>(text) {
        // What a type cannot hold is named by whoever reads the YAML.
        Err(error) => vec![format!("spec.{error}")],
        Ok(object) => {
            let faults = faults(&object).into_iter();
            faults
                .map(|fault| format!("{}: {}", fault.path, fault.message))
                .collect()
        }
    }
}

fn judge<T: Checked + DeserializeOwned>(kind: &str) {
    for (_, text) in documents(&format!("good/{kind}.yaml")) {
        assert_eq!(refusals::<T>(&text), [""; 0], "{text}");
    }
    for (expected, text) in documents(&format!("bad/{kind}.yaml")) {
        let refusals = refusals::<T>(&text);
        // An error of the type names the field by the last part of its path.
        let last = expected.rsplit('.').next().unwrap_or_default();
        let is_told = refusals.iter().any(|refusal| {
            refusal.contains(&expected)
                || refusal.contains("unknown variant")
                || (last == expected && refusal.contains(last))
        });
        assert!(is_told, "{expected:?} is not in {refusals:?} of\n{text}");
    }
}

macro_rules! judged {
    ($($name:ident: $kind:ty, $file:literal;)*) => {
        $(#[test]
        fn $name() {
            judge::<$kind>($file);
        })*

        /// Each rule that the check knows stands in the schema with the same words, and the other way
        /// round.
        #[test]
        fn schema_and_check_have_the_same_rules() {
            $(
                let schema = serde_json::to_string(&<$kind as kube::CustomResourceExt>::crd()).unwrap();
                let known = <$kind as Checked>::all_rules();
                for rule in known {
                    let message = serde_json::to_string(rule.message).unwrap();
                    let cel = serde_json::to_string(rule.cel).unwrap();
                    assert!(schema.contains(&message), "{} of {}", rule.message, $file);
                    assert!(schema.contains(&cel), "{} of {}", rule.cel, $file);
                }
                let bad: String = documents(concat!("bad/", $file, ".yaml"))
                    .into_iter()
                    .map(|(expected, _)| expected + "\n")
                    .collect();
                for rule in known {
                    let is_tried = bad.lines().any(|expected| rule.message.contains(expected));
                    assert!(is_tried, "no bad object breaks {:?} of {}", rule.message, $file);
                }
                let carried = schema.matches("\"rule\":").count();
                assert!(carried >= known.len(), "{} rules in the schema of {}", carried, $file);
            )*
        }
    };
}

judged! {
    ai_services: crds::AIService, "aiservice";
    backend_lb_policies: crds::BackendLBPolicy, "backendlbpolicy";
    direct_responses: crds::DirectResponse, "directresponse";
    route_policies: crds::RoutePolicy, "routepolicy";
    security_policies: crds::SecurityPolicy, "securitypolicy";
    token_policies: crds::TokenPolicy, "tokenpolicy";
    wasm_plugins: crds::WasmPlugin, "wasmplugin";
}
