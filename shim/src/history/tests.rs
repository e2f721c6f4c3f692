//! Tests of publishing and of the bounded history.

use std::time::Duration;

use ir::http_route::Route;
use ir::{HttpRoute, Resources};

use super::*;

fn store(size: usize) -> Store {
    Store::new(size, Arc::new(Metrics::default()))
}

fn route(name: &str, label: &str) -> HttpRoute {
    Route {
        key: format!("default/{name}").into(),
        hostnames: Vec::new(),
        listeners: Vec::new(),
        parent_refs: Vec::new(),
        rules: Vec::new(),
        labels: [("app".to_owned(), label.to_owned())].into(),
        annotations: ir::resource::Metadata::default(),
        policy: None,
        security_policy: None,
        created_at: None,
    }
}

fn snapshot(routes: &[(&str, &str)]) -> Snapshot {
    Snapshot {
        http_routes: routes
            .iter()
            .map(|(name, label)| route(name, label))
            .collect::<Resources<_>>(),
        ..Snapshot::default()
    }
}

fn publish(store: &Store, routes: &[(&str, &str)]) -> Option<Version> {
    let published = store.publish(snapshot(routes), SystemTime::now()).unwrap();
    published.map(|published| published.snapshot.version.clone())
}

#[test]
fn a_version_names_the_content_and_nothing_else() {
    let (first, second) = (store(4), store(4));
    let a = publish(&first, &[("a", "1"), ("b", "1")]).unwrap();
    publish(&second, &[("b", "1"), ("c", "9")]).unwrap();
    let b = publish(&second, &[("b", "1"), ("a", "1")]).unwrap();
    assert_eq!(a, b, "the way there does not matter");
    let c = publish(&first, &[("a", "1"), ("b", "2")]).unwrap();
    assert_ne!(a, c);
}

#[test]
fn an_empty_configuration_is_published_too() {
    let store = store(4);
    assert!(publish(&store, &[]).is_some());
    assert!(publish(&store, &[]).is_none());
}

#[test]
fn the_same_content_is_published_once() {
    let store = store(4);
    assert!(publish(&store, &[("a", "1")]).is_some());
    assert!(publish(&store, &[("a", "1")]).is_none());
    let published = store
        .publish(
            snapshot(&[("a", "1")]),
            SystemTime::now() + Duration::from_secs(60),
        )
        .unwrap();
    assert!(published.is_none(), "time is no content");
}

#[test]
fn the_history_is_bounded_and_always_has_the_current_one() {
    for size in [0, 1, 3] {
        let store = store(size);
        let versions: Vec<Version> = (0..10)
            .map(|n| publish(&store, &[("a", &n.to_string())]).unwrap())
            .collect();
        let known = versions
            .iter()
            .filter(|version| store.find(version).is_some())
            .count();
        assert_eq!(known, size + 1);
        assert!(store.find(versions.last().unwrap()).is_some());
    }
}

#[test]
fn a_state_that_comes_back_takes_one_place() {
    let store = store(2);
    let a = publish(&store, &[("a", "1")]).unwrap();
    for _ in 0..5 {
        publish(&store, &[("a", "2")]).unwrap();
        assert_eq!(publish(&store, &[("a", "1")]), Some(a.clone()));
    }
    let other = publish(&store, &[("a", "3")]).unwrap();
    assert!(store.find(&a).is_some() && store.find(&other).is_some());
}

#[test]
fn what_did_not_change_is_shared_with_the_snapshot_before() {
    let store = store(2);
    let first = store
        .publish(snapshot(&[("a", "1"), ("b", "1")]), SystemTime::now())
        .unwrap()
        .unwrap();
    let second = store
        .publish(snapshot(&[("a", "2"), ("b", "1")]), SystemTime::now())
        .unwrap()
        .unwrap();
    let b = |published: &Published| published.snapshot.http_routes.get("default/b").cloned();
    assert!(Arc::ptr_eq(&b(&first).unwrap(), &b(&second).unwrap()));
}

#[test]
fn labels_in_use_are_a_required_feature() {
    let store = store(2);
    publish(&store, &[("a", "1")]).unwrap();
    let snapshot = &store.current().unwrap().snapshot;
    assert_eq!(
        snapshot.required_features,
        ["core.v1", "route.labels.v1"].map(str::to_owned)
    );
    assert_eq!(snapshot.compatibility_profile, "full-v1");
}
