//! CORS through the whole gateway: preflights, requests proper, answers of the gateway's own.

use dataplane_testkit::Backend;
use dataplane_testkit::backend::{Kind, Script};
use http::Method;
use ir::Filter;
use ir::filter::{Cors, HeaderEdit, Redirect};

use super::{both, serving};

const ORIGIN: (&str, &str) = ("origin", "https://app.example.com");
const PREFLIGHT: [(&str, &str); 3] = [
    ORIGIN,
    ("access-control-request-method", "PUT"),
    ("access-control-request-headers", "x-a, authorization"),
];

fn cors() -> Cors {
    Cors {
        allow_origins: vec!["https://*.example.com".to_owned()],
        allow_methods: vec!["*".to_owned()],
        allow_headers: vec!["*".to_owned()],
        expose_headers: vec!["X-Backend".to_owned()],
        allow_credentials: true,
        max_age_seconds: 60,
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_the_backend() {
    let backend = Backend::http1("b").await;
    for (rule, of_backend) in [
        (vec![Filter::Cors(cors())], vec![]),
        (vec![], vec![Filter::Cors(cors())]),
    ] {
        let (_gateway, port) = serving(rule, of_backend, |snapshot| {
            snapshot.cluster("shop/b:80", &[backend.address()])
        })
        .await;
        for answer in both(port, Method::OPTIONS, "/x", &PREFLIGHT).await {
            assert_eq!(answer.status, 204);
            assert!(!answer.headers.contains_key("content-length"));
            for (name, value) in [
                ("access-control-allow-origin", ORIGIN.1),
                ("access-control-allow-credentials", "true"),
                ("access-control-allow-methods", "PUT"),
                ("access-control-allow-headers", "x-a, authorization"),
                ("access-control-expose-headers", "X-Backend"),
                ("access-control-max-age", "60"),
            ] {
                assert_eq!(answer.header(name), value, "{name}");
            }
        }
        let mut fields = PREFLIGHT;
        fields[0].1 = "https://evil.example.org";
        for answer in both(port, Method::OPTIONS, "/x", &fields).await {
            assert_eq!(answer.status, 204);
            assert!(!answer.headers.contains_key("access-control-allow-origin"));
        }
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn other_options_requests_reach_the_backend() {
    let backend = Backend::http1("b").await;
    let (_gateway, port) = serving(vec![Filter::Cors(cors())], vec![], |snapshot| {
        snapshot.cluster("shop/b:80", &[backend.address()])
    })
    .await;
    for answer in both(port, Method::OPTIONS, "/x", &PREFLIGHT[..1]).await {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-backend"), "b");
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN.1);
        assert!(!answer.headers.contains_key("access-control-max-age"));
    }
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn what_the_backend_says_about_sharing_is_taken_out() {
    let script = Script::answer(
        "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\n\
         access-control-allow-credentials: true\r\nvary: accept\r\ncontent-length: 0\r\n\r\n",
    );
    let backend = Backend::start("b", Kind::Scripted(script)).await;
    let (_gateway, port) = serving(vec![Filter::Cors(cors())], vec![], |snapshot| {
        snapshot.cluster("shop/b:80", &[backend.address()])
    })
    .await;
    for (fields, expected) in [
        (&[("origin", "https://evil.example.org")][..], None),
        (&[], None),
        (&[ORIGIN], Some(ORIGIN.1)),
    ] {
        for answer in both(port, Method::GET, "/x", fields).await {
            let allowed = answer.headers.get("access-control-allow-origin");
            assert_eq!(allowed.map(|value| value.to_str().unwrap()), expected);
            let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
            assert_eq!(vary, ["accept", "Origin"]);
        }
    }
}

#[tokio::test]
async fn answers_of_the_gateway_itself_are_shared_too() {
    let gone = dataplane_testkit::backend::closed_address();
    // The origin counts as the client sent it, whatever later filters do to it.
    let edit = HeaderEdit {
        remove: vec!["origin".to_owned()],
        ..HeaderEdit::default()
    };
    let filters = vec![Filter::Cors(cors()), Filter::RequestHeaders(edit)];
    let (_gateway, port) = serving(filters, vec![], |snapshot| {
        snapshot.cluster("shop/b:80", &[gone])
    })
    .await;
    for answer in both(port, Method::GET, "/x", &[ORIGIN]).await {
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN.1);
    }
    let redirect = Redirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: 308,
    };
    let filters = vec![Filter::Cors(cors()), Filter::Redirect(redirect)];
    let (_gateway, port) = serving(filters, vec![], |snapshot| snapshot).await;
    for answer in both(port, Method::GET, "/x", &[ORIGIN]).await {
        assert_eq!(answer.status, 308);
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN.1);
    }
}
