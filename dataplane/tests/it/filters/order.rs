//! Order and conflicts: as written on the way in, in reverse on the way out, 500 when impossible.

use std::sync::Arc;

use dataplane_testkit::Backend;
use http::Method;
use ir::Filter;
use ir::filter::{Cors, DirectResponse, HeaderEdit, PathEdit, Redirect, Rewrite};

use super::{both, serving};

fn set(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit {
        set: vec![(name.to_owned(), value.to_owned())],
        ..HeaderEdit::default()
    }
}

fn redirect() -> Filter {
    Filter::Redirect(Redirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: 302,
    })
}

fn rewrite() -> Filter {
    Filter::Rewrite(Rewrite {
        hostname: None,
        path: Some(PathEdit::Full("/new".to_owned())),
    })
}

#[tokio::test]
async fn the_first_filter_has_the_last_word_about_the_response() {
    let backend = Backend::http1("b").await;
    let filters = vec![
        Filter::ResponseHeaders(set("x-said", "by the first")),
        Filter::ResponseHeaders(set("x-said", "by the second")),
    ];
    let of_backend = vec![Filter::ResponseHeaders(set("x-said", "by the backend's"))];
    let (_gateway, port) = serving(filters, of_backend, |snapshot| {
        snapshot.cluster("shop/b:80", &[backend.address()])
    })
    .await;
    for answer in both(port, Method::GET, "/", &[]).await {
        assert_eq!(answer.header("x-said"), "by the first");
    }
}

#[tokio::test]
async fn a_filter_sees_what_those_before_it_did() {
    let backend = Backend::http1("b").await;
    let direct = DirectResponse {
        status: 418,
        body: Arc::from("short and stout"),
        content_type: "text/html".to_owned(),
    };
    for (filters, status) in [
        (vec![rewrite(), Filter::DirectResponse(direct.clone())], 418),
        (vec![redirect(), Filter::DirectResponse(direct)], 302),
        (vec![Filter::Cors(Cors::default()), redirect()], 302),
    ] {
        let (_gateway, port) = serving(filters, vec![], |snapshot| {
            snapshot.cluster("shop/b:80", &[backend.address()])
        })
        .await;
        for answer in both(port, Method::GET, "/", &[]).await {
            assert_eq!(answer.status, status);
        }
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn filters_that_exclude_each_other_answer_500() {
    let backend = Backend::http1("b").await;
    let unknown = Filter::Unsupported {
        name: "Future".to_owned(),
        reason: "not known".to_owned(),
    };
    for filters in [
        vec![redirect(), rewrite()],
        vec![rewrite(), rewrite()],
        vec![Filter::Cors(Cors::default()), Filter::Cors(Cors::default())],
        vec![unknown, redirect()],
    ] {
        for at_backend in [false, true] {
            let (rule, of_backend) = match at_backend {
                false => (filters.clone(), vec![]),
                true => (vec![], filters.clone()),
            };
            let (_gateway, port) = serving(rule, of_backend, |snapshot| {
                snapshot.cluster("shop/b:80", &[backend.address()])
            })
            .await;
            for answer in both(port, Method::GET, "/", &[]).await {
                assert_eq!(answer.status, 500, "{filters:?}");
                assert!(answer.text().contains("unsupported_filter"));
            }
        }
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn a_backend_s_own_filters_concern_its_share_alone() {
    let (a, b) = (Backend::http1("a").await, Backend::http1("b").await);
    let port = dataplane_testkit::snapshot::free_port();
    let clusters = [("shop/a:80", 1), ("shop/b:80", 1)];
    let mut route = crate::support::http_route("shop/r", "", "/", &clusters);
    route.rules[0].backends[0].filters = vec![redirect(), rewrite()];
    route.rules[0].backends[1].filters = vec![
        rewrite(),
        Filter::RequestHeaders(set("x-in", "1")),
        Filter::ResponseHeaders(set("x-out", "1")),
    ];
    let snapshot = dataplane_testkit::SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/a:80", &[a.address()])
        .cluster("shop/b:80", &[b.address()])
        .build();
    let _gateway = crate::support::Gateway::serving(&snapshot).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        for answer in both(port, Method::GET, "/old", &[]).await {
            statuses.push(answer.status.as_u16());
            if answer.status == 200 {
                assert_eq!(answer.header("x-out"), "1");
                assert_eq!(answer.json()["path"], "/new");
                assert_eq!(answer.json()["headers"]["x-in"][0], "1");
            }
        }
    }
    let failed = statuses.iter().filter(|status| **status == 500).count();
    assert!((4..=6).contains(&failed), "{statuses:?}");
    assert_eq!((a.requests(), b.requests()), (0, statuses.len() - failed));
}
