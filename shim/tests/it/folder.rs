//! A folder of manifests for one test, and what is read from it.

use std::fs;
use std::path::{Path, PathBuf};

use shim::cluster_view::{ClusterView, Kind};
use shim::conditions::{Condition, ConditionType, ObjectStatus, reasons};
use shim::files::{FileSource, Files};
use shim::translate::{Settings, Translation, translate};
use tempfile::TempDir;

/// A folder that goes away with the test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and gives back its path; folders on the way are made.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn source(&self) -> FileSource {
        FileSource::new([self.path().to_owned()])
    }
}

/// What one file with that text says.
pub(crate) fn read(text: &str) -> Files {
    let folder = Folder::new();
    folder.write("in.yaml", text);
    folder.source().current()
}

/// The view of one file that must be without fault.
pub(crate) fn view(text: &str) -> ClusterView {
    let files = read(text);
    assert_eq!(*files.faults, [], "the manifests are meant to be readable");
    files.view
}

/// The translation of one file that must be readable.
pub(crate) fn translated(text: &str) -> Translation {
    let translation = translate(&view(text), &Settings::default(), None);
    conditions_are_on_the_page(&translation);
    translation
}

/// Every condition has a reason that `docs/reference/conditions.md` has for its type.
pub(crate) fn conditions_are_on_the_page(translation: &Translation) {
    for status in translation.statuses() {
        for (_, condition) in status.all_conditions() {
            let is_known = reasons::is_known(condition.kind, condition.reason);
            assert!(
                is_known,
                "shim/src/conditions/reasons.rs does not know: {condition}"
            );
        }
    }
}

/// The condition of that type, about `part` of an object as [`ObjectStatus::all_conditions`] names
/// it.
pub(crate) fn condition(
    translation: &Translation,
    kind: Kind,
    key: &str,
    part: &str,
    wanted: ConditionType,
) -> Condition {
    let status = translation.status(kind, key);
    let status: &ObjectStatus =
        status.unwrap_or_else(|| panic!("nothing is said about {kind} {key}"));
    let mut all = status.all_conditions();
    let found = all.find(|(known, condition)| known == part && condition.kind == wanted);
    let (_, condition) = found.unwrap_or_else(|| {
        panic!("no {wanted:?} about {part:?} of {kind} {key}: {status:#?}");
    });
    condition.clone()
}

/// Every condition of that object as text.
pub(crate) fn lines(translation: &Translation, kind: Kind, key: &str) -> Vec<String> {
    let status = translation.status(kind, key);
    status.map_or_else(Vec::new, |status| {
        status.lines(shim::conditions::Which::All)
    })
}

/// A GatewayClass of ours and a Gateway `infra/gw` with one HTTP listener that takes every route.
pub(crate) const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: nantian-gw}
spec: {controllerName: gateway.networking.k8s.io/nantian-gw}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: nantian-gw
  listeners:
  - name: http
    port: 8080
    protocol: HTTP
    allowedRoutes: {namespaces: {from: All}}
---
";

/// A Service `shop/cart` with port 80 and two endpoints, one not ready.
pub(crate) const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: web, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: web, port: 3000}]
endpoints:
- addresses: [10.0.0.1]
  zone: a
- addresses: [10.0.0.2]
  conditions: {ready: false}
---
";

/// An HTTPRoute in namespace `shop` at `infra/gw` with that name and those further lines of spec.
pub(crate) fn route(name: &str, spec: &str) -> String {
    let spec = spec.trim_matches('\n').replace('\n', "\n  ");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         parentRefs: [{{name: gw, namespace: infra}}]\n  {spec}\n---\n"
    )
}
