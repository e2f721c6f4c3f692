//! What an edit leaves behind: of a table when routes go, of a host map, and of a message head whose
//! framing no filter may touch.

use dataplane_route::filter::headers::HeaderEdit;
use dataplane_route::hostname::HostMap;
use dataplane_route::table::{RouteKind, Table};
use http::HeaderMap;
use ir::Hostname;

use crate::routes::{AnyRoute, Sent, call, exact, prefix, table};

#[test]
fn nothing_is_left_of_a_route_that_is_taken_out() {
    let hosts = [
        &[][..],
        &["a.example.com"],
        &["*.example.com", "a.example.com"],
        // The same name twice is one name.
        &["a.example.com", "a.example.com"],
    ];
    let matches = || vec![exact("/"), prefix("/"), prefix("/"), prefix("/a")];
    let sent = Sent::get("a.example.com", "/");
    let called = Sent::call("a.example.com", "/s/m");
    for hosts in hosts {
        let http = AnyRoute::http("a/http", hosts, vec![matches(), matches()]);
        let grpc = AnyRoute::grpc("a/grpc", hosts, vec![vec![call(None, None)]]);
        let mut table = table(&[http, grpc]);
        assert_eq!(table.len(), 2);
        assert!(table.lookup(&sent.request()).is_some(), "{hosts:?}");

        assert!(table.remove(RouteKind::Http, "a/http"));
        assert!(table.lookup(&sent.request()).is_none(), "{hosts:?}");
        assert!(table.lookup(&called.request()).is_some(), "{hosts:?}");

        assert!(table.remove(RouteKind::Grpc, "a/grpc"));
        assert!(table.lookup(&called.request()).is_none(), "{hosts:?}");
        assert!(table.is_empty(), "{hosts:?}");
    }
}

#[test]
fn a_route_without_matches_is_held_and_never_found() {
    let mut table = table(&[AnyRoute::http("a/none", &["a.example.com"], vec![])]);
    let sent = Sent::get("a.example.com", "/");
    assert!(!table.is_empty());
    assert!(table.lookup(&sent.request()).is_none());
    assert!(table.remove(RouteKind::Http, "a/none"));
    assert!(table.is_empty());
}

#[test]
fn taking_out_what_is_not_there_changes_nothing() {
    let mut empty: Table<String> = Table::default();
    assert!(!empty.remove(RouteKind::Http, "a/r"));
    let mut table = table(&[AnyRoute::http("a/r", &[], vec![vec![prefix("/")]])]);
    for (kind, key) in [(RouteKind::Grpc, "a/r"), (RouteKind::Http, "a/s")] {
        assert!(!table.remove(kind, key), "{kind:?} {key}");
    }
    let sent = Sent::get("a.example.com", "/");
    assert!(table.lookup(&sent.request()).is_some());
}

#[test]
fn a_name_of_a_host_map_is_put_in_changed_and_taken_out() {
    let exact = Hostname::new("a.example.com").unwrap();
    let wildcard = Hostname::new("*.example.com").unwrap();
    let names = [None, Some(&exact), Some(&wildcard)];
    for name in names {
        let mut map = HostMap::default();
        assert_eq!(map.get(name), None, "{name:?}");
        assert_eq!(map.get_mut(name), None, "{name:?}");
        assert_eq!(map.remove(name), None, "{name:?}");
        assert_eq!(map.insert(name, 1), None, "{name:?}");
        *map.get_mut(name).unwrap() += 1;
        assert_eq!(*map.get_or_insert_with(name, || 9), 2, "{name:?}");
        assert_eq!(map.insert(name, 3), Some(2), "{name:?}");
        assert_eq!((map.get(name), map.len()), (Some(&3), 1), "{name:?}");
        assert_eq!(map.best("a.example.com"), Some(&3), "{name:?}");
        for other in names.into_iter().filter(|other| *other != name) {
            assert_eq!(map.get(other), None, "{other:?} beside {name:?}");
        }
        assert_eq!(map.remove(name), Some(3), "{name:?}");
        assert!(map.is_empty(), "{name:?}");
    }
}

#[test]
fn no_header_filter_touches_framing_connection_or_host() {
    let fields = [
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "TE",
        "Host",
        "Keep-Alive",
        "Proxy-Connection",
    ];
    for field in fields {
        let pair = vec![(field.to_owned(), "9".to_owned())];
        let edits = [
            ir::filter::HeaderEdit {
                set: pair.clone(),
                ..Default::default()
            },
            ir::filter::HeaderEdit {
                add: pair,
                ..Default::default()
            },
            ir::filter::HeaderEdit {
                remove: vec![field.to_owned()],
                ..Default::default()
            },
        ];
        for edit in edits {
            let compiled = HeaderEdit::compile(&edit).unwrap();
            assert!(compiled.is_empty(), "{edit:?}");
            let mut headers = HeaderMap::new();
            headers.insert(
                field
                    .to_ascii_lowercase()
                    .parse::<http::HeaderName>()
                    .unwrap(),
                "1".parse().unwrap(),
            );
            let before = headers.clone();
            compiled.apply(&mut headers);
            assert_eq!(headers, before, "{edit:?}");
        }
    }
}
