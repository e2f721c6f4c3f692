//! Tests of the live trace: who is shown what, what is never shown, and what a slow watcher costs.

use super::super::tests::active;
use super::super::{Tracing, Wanted};
use super::*;
use crate::access_log::Destination;

fn seen<'a>(header: &'a dyn Fn(&str) -> Vec<&'a [u8]>) -> Seen<'a> {
    Seen {
        method: "GET",
        host: "Shop.example:8080",
        target: "/cart/1?token=s3cr3t",
        client: [203, 0, 113, 9].into(),
        header,
    }
}

fn record() -> Record<'static> {
    Record {
        latency: Duration::from_millis(5),
        listener: "infra/gw/http",
        client_ip: [203, 0, 113, 9].into(),
        method: "GET",
        host: b"shop.example",
        path: b"/cart/1?token=s3cr3t&s3cr3t",
        upstream_path: b"/rewritten?token=s3cr3t",
        status: 503,
        destination: Destination {
            route: Some("Http/shop/cart"),
            attempts: 2,
            upstream_connect_time: Some(Duration::from_millis(1)),
            ..Destination::NOWHERE
        },
        first_byte_time: Some(Duration::from_millis(4)),
        reason: Reason::UpstreamReset,
        ..Record::unknown()
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn field(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn only_what_is_asked_for_is_wanted() {
    type Case = (fn(&mut Wanted), bool);
    let cases: [Case; 21] = [
        (|_| (), true),
        (|it| it.method = text("GET"), true),
        (|it| it.method = text("POST"), false),
        (|it| it.host = text("shop.example"), true),
        (|it| it.host = text("example"), false),
        (|it| it.path = text("/cart"), true),
        (|it| it.path = text("/carts"), false),
        (|it| it.client = Some([203, 0, 113, 9].into()), true),
        (|it| it.client = Some([203, 0, 113, 8].into()), false),
        (|it| it.headers = field("x-team", "blue"), true),
        (|it| it.headers = field("x-team", ""), true),
        (|it| it.headers = field("x-team", "red"), false),
        (|it| it.headers = field("x-other", ""), false),
        (|it| it.route = text("shop/cart"), true),
        (|it| it.route = text("Http/shop/cart"), true),
        (|it| it.route = text("art"), false),
        (|it| it.route = text("none"), false),
        (|it| it.status = text("5"), true),
        (|it| it.status = text("503"), true),
        (|it| it.status = text("50x"), false),
        (|it| it.status = text("4"), false),
    ];
    let header = |name: &str| match name {
        "x-team" => vec![&b"green"[..], b"blue"],
        _ => Vec::new(),
    };
    for (ask, expected) in cases {
        let mut wanted = Wanted::default();
        ask(&mut wanted);
        let is_wanted = wanted.takes(&seen(&header)) && wanted.takes_ended(&record());
        assert_eq!(is_wanted, expected, "{wanted:?}");
    }
}

#[tokio::test]
async fn a_request_is_shown_step_by_step_and_without_values() {
    let tracing = Tracing::default();
    let tracer = tracing.tracer();
    assert!(!tracer.is_wanted());
    let mut watching = tracing.watch(Wanted::default()).unwrap();
    assert!(tracer.is_wanted() && tracer.is_watched() && !tracer.is_exporting());
    let watchers = tracer.who_wants(&seen(&|_| Vec::new()));
    assert_eq!(watchers.len(), 1);
    let mut active = Active {
        is_exported: false,
        watchers,
        ..active()
    };
    active.note(Duration::from_micros(70), "routed", || {
        "Http/shop/cart".to_owned()
    });
    for (began, failure) in [(1, Some(Reason::ConnectFailed)), (3, None)] {
        active.attempts.push(Attempt {
            span_id: 1,
            began: Duration::from_millis(began),
            ended: Some(Duration::from_millis(began + 1)),
            endpoint: Some(([10, 0, 0, 1], 80).into()),
            is_tls: false,
            status: if failure.is_none() { 503 } else { 0 },
            failure,
            model: None,
        });
    }
    tracer.finish(Box::new(active), &record(), None);
    let shown = watching.next().await.unwrap();
    assert_eq!(shown["path"], "/cart/1?token=***&***");
    assert!(!shown.to_string().contains("s3cr3t"), "{shown}");
    let steps = shown["steps"].as_array().unwrap().iter();
    let steps: Vec<_> = steps
        .map(|it| format!("{} {} {}", it["at_ms"], it["step"], it["detail"]).replace('"', ""))
        .collect();
    let expected = [
        "0.0 accepted from 203.0.113.9, at listener infra/gw/http, HTTP/1.1",
        "0.07 routed Http/shop/cart",
        "1.0 sent to 10.0.0.1:80",
        "2.0 failed connect_failed",
        "3.0 sent again to 10.0.0.1:80, which answered 503",
        "4.0 answered 503, a new connection took 1 ms",
        "5.0 ended 503 upstream_reset, 0 bytes sent",
    ];
    assert_eq!(steps, expected);
    drop(watching);
    assert!(!tracer.is_wanted());
}

#[test]
fn a_watcher_that_takes_nothing_misses_and_holds_nobody_up() {
    let tracing = Tracing::default();
    let tracer = tracing.tracer();
    let watching = tracing.watch(Wanted::default()).unwrap();
    for _ in 0..WAITING_MAX + 10 {
        let shown = Active {
            is_exported: false,
            watchers: tracer.who_wants(&seen(&|_| Vec::new())),
            ..active()
        };
        tracer.finish(Box::new(shown), &record(), None);
    }
    assert_eq!(watching.missed(), 10);
}

#[test]
fn only_so_many_watch_at_a_time() {
    let tracing = Tracing::default();
    let watching: Vec<_> = (0..WATCHERS_MAX)
        .map(|_| tracing.watch(Wanted::default()).unwrap())
        .collect();
    assert!(tracing.watch(Wanted::default()).is_none());
    drop(watching);
    assert!(tracing.watch(Wanted::default()).is_some());
}
