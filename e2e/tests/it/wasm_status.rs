//! What data planes say of a plugin, at its object in a real API server.

use dataplane_testkit::snapshot::free_port;
use e2e::gateway::DataPlane;
use serde_json::Value;

use crate::cluster::{ALONE, Place, condition};
use crate::kinds;

/// Two modules without a callback, in base64, and their digests.
const MODULES: [(&str, &str); 2] = [
    (
        "AGFzbQEAAAABBAFgAAADAgEABQMBAAEHJAIGbWVtb3J5AgAXcHJveHlfYWJpX3ZlcnNpb25fMF8yXzEAAAoEAQIACwACAWE=",
        "f60d73c2c2e754996ef1513b3b80314642020819c0c6ac725e2ca395111d2ef5",
    ),
    (
        "AGFzbQEAAAABBAFgAAADAgEABQMBAAEHJAIGbWVtb3J5AgAXcHJveHlfYWJpX3ZlcnNpb25fMF8yXzEAAAoEAQIACwACAWI=",
        "2aec97ae08175f582fa8e83642ec355b893468efd366d2d5f6e58f054f27abcd",
    ),
];

fn plugin(place: &Place<'_>, source: &str) {
    let text = format!(
        "apiVersion: gateway.nantian.dev/v1alpha1\nkind: WasmPlugin\n\
         metadata: {{name: p, namespace: {}}}\nspec:\n  wasm: {source}\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}]",
        place.namespace
    );
    place.server.apply(&text).unwrap();
}

/// A claim of that truth whose message names these.
fn claims(plugin: &Value, kind: &str, status: &str, words: &[&str]) -> bool {
    let conditions = &plugin["status"]["ancestors"][0]["conditions"];
    let claim = condition(conditions, kind);
    let message = claim["message"].as_str().unwrap_or_default();
    claim["status"] == status && words.iter().all(|word| message.contains(word))
}

#[tokio::test]
async fn a_plugin_says_which_digest_runs_and_what_it_lacks() {
    let Some(server) = kinds::server() else {
        return;
    };
    let place = Place::new(server, "plugin", ALONE);
    let shim = place.shim().await;
    place.gateway(free_port());
    let [(module, digest), (changed, changed_digest)] = MODULES;
    plugin(&place, &format!("{{inline: {module}, sha256: {digest}}}"));
    let is_accepted = |it: &Value| claims(it, "Accepted", "True", &[]);
    let told = place.wait("wasmplugin", "p", is_accepted).await;
    assert!(
        !claims(&told, "Programmed", "True", &[]),
        "no data plane runs it yet: {told:#}"
    );
    let _data_plane = DataPlane::spawn(shim.grpc, None, |_| ()).unwrap();
    let words = [digest, "1 data plane"];
    let runs = |it: &Value| claims(it, "Programmed", "True", &words);
    let told = place.wait("wasmplugin", "p", runs).await;
    assert!(claims(&told, "ResolvedRefs", "True", &[digest]), "{told:#}");

    plugin(&place, &format!("{{inline: {changed}}}"));
    let runs_another = |it: &Value| claims(it, "Programmed", "True", &[changed_digest]);
    place.wait("wasmplugin", "p", runs_another).await;

    // A digest that it has not.
    plugin(&place, &format!("{{inline: {changed}, sha256: {digest}}}"));
    let is_refused = |it: &Value| claims(it, "Accepted", "False", &[digest]);
    place.wait("wasmplugin", "p", is_refused).await;

    // Nobody is there to fetch it from, and data planes say so.
    let url = format!("http://127.0.0.1:{}/p.wasm", free_port());
    plugin(&place, &format!("{{url: \"{url}\"}}"));
    let is_lacking = |it: &Value| claims(it, "Programmed", "False", &["dp-1", "cannot be reached"]);
    place.wait("wasmplugin", "p", is_lacking).await;
}
