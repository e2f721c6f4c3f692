//! What one edit costs among thousands of routes.

use std::time::Instant;

use ir::Change;
use shim::translate::{Settings, translate};

use crate::folder::{GATEWAY, SERVICE, route, view};

#[test]
fn one_edit_among_three_thousand_routes_touches_one_route() {
    let rules =
        "\nrules:\n- matches: [{path: {value: /x}}]\n  backendRefs: [{name: cart, port: 80}]";
    let routes: String = (0..3000)
        .map(|n| {
            route(
                &format!("r{n}"),
                &format!("\nhostnames: [h{n}.example]{rules}"),
            )
        })
        .collect();
    let mut view = view(&format!("{GATEWAY}{SERVICE}{routes}"));
    let settings = Settings::default();
    let started = Instant::now();
    let first = translate(&view, &settings, None);
    println!("3,000 routes from nothing: {:?}", started.elapsed());
    assert_eq!(first.snapshot().http_routes.len(), 3000);

    let edited = crate::folder::view(&route(
        "r7",
        &format!("\nhostnames: [other.example]{rules}"),
    ));
    view.http_routes
        .insert(edited.http_routes.get("shop/r7").unwrap().clone());
    let started = Instant::now();
    let next = translate(&view, &settings, Some(&first));
    let took = started.elapsed();
    println!("one edit among them: {took:?}");

    let routes = (&first.snapshot().http_routes, &next.snapshot().http_routes);
    let changes: Vec<_> = routes.0.changes(routes.1).collect();
    assert!(matches!(&*changes, [Change::Upsert(route)] if &*route.key == "shop/r7"));
    assert!(first.snapshot().clusters.is_same(&next.snapshot().clusters));
    assert!(
        first
            .snapshot()
            .listeners
            .is_same(&next.snapshot().listeners)
    );
    let kept = |key| {
        let key = format!("shop/{key}");
        std::sync::Arc::ptr_eq(routes.0.get(&key).unwrap(), routes.1.get(&key).unwrap())
    };
    assert!(kept("r6") && kept("r8"));
}
