//! Tests of the exposition as a whole: what a scrape shows, and what it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::*;
use crate::grpc_status::GrpcStatus;
use crate::reason::Reason;

/// A scrape, every line without comments as name with labels and value.
fn scrape(metrics: &Metrics) -> BTreeMap<String, String> {
    let mut text = String::new();
    metrics.encode_text(&mut text);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let mut map = BTreeMap::new();
    for line in samples {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let short = name
            .strip_prefix("nantian_gateway_dataplane_")
            .unwrap_or(name);
        assert!(
            map.insert(short.to_owned(), value.to_owned()).is_none(),
            "{name} twice"
        );
    }
    map
}

/// Something of everything.
fn busy() -> Arc<Metrics> {
    let metrics = Metrics::new();
    let route = metrics.route("Http/shop/cart", "web");
    route.observe(200, Reason::Ok, Duration::from_millis(3), 100, 2000);
    route.observe(200, Reason::Ok, Duration::from_millis(3), 100, 2000);
    route.observe(503, Reason::NoEndpoint, Duration::from_micros(90), 50, 0);
    route.observe(0, Reason::ClientAborted, Duration::from_secs(40), 0, 0);
    let listener = metrics.listener("web");
    listener.observe(404, Reason::RouteNotFound, Duration::from_micros(10), 1, 2);
    listener.connection_rejected(ConnectionLimit::Listener);
    let backend = metrics.backend(&"shop/cart:80".into());
    drop(backend.connection_opened());
    backend.connection_failed(Reason::ConnectTimeout);
    metrics.admin.observe("GET", "/metrics", 200);
    metrics.admin.observe("BREW", "/metrics", 405);
    metrics.xds.connected.set_claim(true);
    metrics
        .xds
        .applied_at(SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
    metrics
        .xds
        .stage(ApplyStage::Swap, Duration::from_micros(1));
    metrics.inventory.listeners.set(2_usize);
    metrics
}

#[test]
fn what_is_observed_is_exposed() {
    let samples = scrape(&busy());
    let expected = [
        ("listener_count", "2"),
        (
            "http_requests_total{listener=\"web\",route=\"Http/shop/cart\",status_class=\"2xx\"}",
            "2",
        ),
        (
            "http_requests_total{listener=\"web\",route=\"Http/shop/cart\",status_class=\"5xx\"}",
            "1",
        ),
        (
            "http_requests_total{listener=\"web\",route=\"Http/shop/cart\",status_class=\"other\"}",
            "1",
        ),
        (
            "http_requests_total{listener=\"web\",route=\"none\",status_class=\"4xx\"}",
            "1",
        ),
        (
            "http_responses_total{listener=\"web\",route=\"Http/shop/cart\",status_code=\"503\"}",
            "1",
        ),
        (
            "http_responses_total{listener=\"web\",route=\"Http/shop/cart\",status_code=\"other\"}",
            "1",
        ),
        (
            "http_received_bytes_total{listener=\"web\",route=\"Http/shop/cart\"}",
            "250",
        ),
        (
            "http_sent_bytes_total{listener=\"web\",route=\"Http/shop/cart\"}",
            "4000",
        ),
        (
            "http_request_duration_seconds_bucket{listener=\"web\",route=\"Http/shop/cart\",le=\"0.01\"}",
            "3",
        ),
        (
            "http_request_duration_seconds_count{listener=\"web\",route=\"Http/shop/cart\"}",
            "4",
        ),
        (
            "http_request_duration_seconds_sum{listener=\"web\",route=\"Http/shop/cart\"}",
            "40.00609",
        ),
        ("http_outcomes_total{listener=\"web\",reason=\"ok\"}", "2"),
        (
            "http_outcomes_total{listener=\"web\",reason=\"route_not_found\"}",
            "1",
        ),
        (
            "http_response_flags_total{listener=\"web\",flag=\"UH\"}",
            "1",
        ),
        ("http_global_inflight_current", "0"),
        (
            "downstream_connections_rejected_total{listener=\"web\",limit=\"listener\"}",
            "1",
        ),
        ("backend_connections_active{backend=\"shop/cart:80\"}", "0"),
        ("backend_connections_total{backend=\"shop/cart:80\"}", "1"),
        (
            "backend_connection_errors_total{backend=\"shop/cart:80\",reason=\"connect_timeout\"}",
            "1",
        ),
        (
            "admin_requests_total{method=\"GET\",route=\"/metrics\",status_class=\"2xx\"}",
            "1",
        ),
        (
            "admin_requests_total{method=\"other\",route=\"/metrics\",status_class=\"4xx\"}",
            "1",
        ),
        ("xds_connected", "1"),
        ("xds_last_apply_timestamp_seconds", "1.5"),
        (
            "xds_apply_stage_duration_seconds_count{stage=\"snapshot_swap\"}",
            "1",
        ),
    ];
    for (name, value) in expected {
        assert_eq!(
            samples.get(name).map(String::as_str),
            Some(value),
            "{name}\n{samples:#?}"
        );
    }
}

#[test]
fn the_process_is_measured() {
    let samples = scrape(&Metrics::new());
    let value = |name: &str| samples[name].parse::<f64>().unwrap();
    assert!(value("process_resident_memory_bytes") > 100_000.0);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_max_fds") >= value("process_open_fds"));
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_cpu_seconds_total") >= 0.0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let age = now - value("process_start_time_seconds");
    assert!((-5.0..86_400.0).contains(&age), "{age}");
}

#[test]
fn exposition_and_reference_name_the_same_families_in_the_same_order() {
    let mut text = String::new();
    busy().encode_text(&mut text);
    let exposed: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    let documented: Vec<_> = reference()
        .iter()
        .map(|doc| (doc.name, doc.kind.as_str()))
        .collect();
    assert_eq!(exposed, documented);
}

/// What a parser of format 0.0.4 insists on: samples follow the header of their family.
#[test]
fn every_sample_stands_under_its_family() {
    let mut text = String::new();
    busy().encode_text(&mut text);
    let mut family = ("", "");
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("# TYPE ") {
            family = header.split_once(' ').unwrap();
            assert!(seen.insert(family.0), "{} is opened twice", family.0);
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let rest = name
                .strip_prefix(family.0)
                .unwrap_or_else(|| panic!("{line}"));
            let allowed: &[&str] = if family.1 == "histogram" {
                &["_bucket", "_sum", "_count"]
            } else {
                &[""]
            };
            assert!(allowed.contains(&rest), "{line}");
            assert!(
                line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(),
                "{line}"
            );
        }
    }
}

#[test]
fn codes_of_grpc_have_series_from_their_first_call_until_their_route_goes() {
    let metrics = busy();
    let grpc = |metrics: &Metrics| {
        let mut samples = scrape(metrics);
        samples.retain(|name, _| name.starts_with("grpc_requests_total"));
        samples.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(grpc(&metrics), []);
    let route = metrics.route("Grpc/pay/bank", "web");
    route.observe(200, Reason::Ok, Duration::ZERO, 0, 0);
    for code in ["0", "14", "99", "14", "4711"] {
        route.grpc_ended(GrpcStatus::read(code.as_bytes()));
    }
    let sample = |code, count: &str| {
        let labels = format!("{{listener=\"web\",route=\"Grpc/pay/bank\",grpc_status=\"{code}\"}}");
        (format!("grpc_requests_total{labels}"), count.to_owned())
    };
    assert_eq!(
        grpc(&metrics),
        [sample("0", "1"), sample("14", "2"), sample("other", "2")]
    );
    metrics.remove_route("Grpc/pay/bank");
    assert_eq!(grpc(&metrics), []);
}

#[test]
fn answers_of_a_backend_are_counted_by_all_threads_until_it_goes() {
    let metrics = Metrics::with_shards(ShardCount::new(4));
    let name: Arc<str> = "shop/cart:80".into();
    let answers = || {
        let mut samples = scrape(&metrics);
        let names = ["backend_requests_total", "backend_response_wait_seconds"];
        samples.retain(|name, _| names.iter().any(|it| name.starts_with(it)));
        samples.into_iter().collect::<Vec<_>>()
    };
    let backend = metrics.backend(&name);
    drop(backend.connection_opened());
    assert_eq!(answers(), [], "it has answered nothing");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for status in [200, 204, 503, 101, 200] {
                    backend.answered(status, Duration::from_millis(125));
                }
            });
        }
    });
    let told = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let class = |class: &str, count: &str| {
        let labels = format!("{{backend=\"shop/cart:80\",status_class=\"{class}\"}}");
        told(&format!("backend_requests_total{labels}"), count)
    };
    let waited = "backend_response_wait_seconds_total{backend=\"shop/cart:80\"}";
    let expected = [class("1xx", "4"), class("2xx", "12"), class("5xx", "4")];
    assert_eq!(answers()[..3], expected);
    assert_eq!(answers()[3..], [told(waited, "2.5")]);
    metrics.remove_backend(&name);
    assert_eq!(answers(), []);
    metrics.backend(&name).answered(200, Duration::ZERO);
    assert_eq!(answers()[0], class("2xx", "1"), "counting starts anew");
}

#[test]
fn a_handle_is_found_again_and_a_removed_route_vanishes() {
    let metrics = busy();
    metrics
        .route("Http/shop/cart", "admin")
        .observe(200, Reason::Ok, Duration::ZERO, 0, 0);
    metrics
        .route("Http/shop/cart2", "web")
        .observe(200, Reason::Ok, Duration::ZERO, 0, 0);
    let held = metrics.route("Http/shop/cart2", "web");
    let exposes = |part: &str| scrape(&metrics).keys().any(|name| name.contains(part));

    assert!(Arc::ptr_eq(&held, &metrics.route("Http/shop/cart2", "web")));
    metrics.remove_route("Http/shop/cart");
    assert!(!exposes("route=\"Http/shop/cart\""));
    assert!(exposes("route=\"Http/shop/cart2\""));
    metrics.retain_routes(|route, _| route != "Http/shop/cart2");
    assert!(!exposes("cart2"));
    held.observe(200, Reason::Ok, Duration::ZERO, 0, 0);
    assert!(
        !exposes("cart2"),
        "a handle that outlives its route writes nowhere"
    );
}

#[test]
fn a_listener_vanishes_with_its_routes() {
    let metrics = busy();
    metrics
        .route("Http/shop/cart", "other")
        .observe(200, Reason::Ok, Duration::ZERO, 0, 0);
    metrics.retain_listeners(|name| name == "other");
    metrics.retain_backends(|_| false);
    let samples = scrape(&metrics);
    assert!(
        !samples
            .keys()
            .any(|name| name.contains("\"web\"") || name.contains("shop/cart:80"))
    );
    assert!(
        samples
            .keys()
            .any(|name| name.contains("listener=\"other\",route=\"Http/shop/cart\""))
    );
    let back = metrics.route("Http/shop/cart", "web");
    back.observe(200, Reason::Ok, Duration::ZERO, 0, 0);
    let outcomes = &scrape(&metrics)["http_outcomes_total{listener=\"web\",reason=\"ok\"}"];
    assert_eq!(
        outcomes, "1",
        "counting starts anew, under the listener that is exposed"
    );
}

#[test]
fn a_route_without_requests_costs_no_series() {
    let metrics = Metrics::new();
    let before = scrape(&metrics).len();
    for i in 0..1000 {
        metrics.route(&format!("Http/a/{i}"), "web");
    }
    let listener_only = scrape(&metrics).len() - before;
    assert!(listener_only < 40, "{listener_only}");
}

#[test]
fn a_route_and_a_backend_keep_to_their_budgets() {
    let metrics = Metrics::new();
    // What belongs to the listener is not theirs.
    let listener = metrics.listener("web");
    for (status, reason) in [
        (200, Reason::Ok),
        (204, Reason::Ok),
        (404, Reason::RouteNotFound),
        (503, Reason::NoEndpoint),
    ] {
        listener.observe(status, reason, Duration::from_millis(1), 1, 1);
    }
    let route = |at: u32| metrics.route(&format!("Http/shop/r{at}"), "web");
    let count = || {
        let samples = scrape(&metrics);
        samples
            .keys()
            .filter(|it| it.contains("Http/shop/") || it.contains("shop/b"))
            .count()
    };
    route(1).observe(200, Reason::Ok, Duration::from_millis(1), 1, 1);
    assert_eq!(count(), 13, "a route that answers with one code");
    for status in [200, 204, 304, 404, 503] {
        route(2).observe(status, Reason::Ok, Duration::from_millis(1), 1, 1);
    }
    assert_eq!(count(), 13 + 20, "a route with four classes and five codes");
    for status in 0..=999 {
        route(3).observe(status, Reason::Ok, Duration::from_millis(1), 1, 1);
    }
    let all = 11 + 6 + 16 + 6;
    assert_eq!(count(), 33 + all, "a route with all codes, by one thread");
    let count = || count() - 33 - all;
    let backend = metrics.backend(&"shop/b1:80".into());
    assert_eq!(count(), 0, "a backend that nobody asked");
    drop(backend.connection_opened());
    backend.answered(200, Duration::from_millis(1));
    backend.answered(204, Duration::from_millis(1));
    assert_eq!(count(), 4, "a backend that was asked, but for what is live");
    backend.answered(503, Duration::from_millis(1));
    assert_eq!(count(), 5, "a further class of status");
}

#[test]
fn five_thousand_routes_in_use_stay_below_a_hundred_thousand_series() {
    let metrics = Metrics::new();
    let mut live = Live::default();
    for at in 0..5000 {
        let route = metrics.route(&format!("Http/shop/r{at}"), "web");
        route.observe(200, Reason::Ok, Duration::from_millis(1), 1, 1);
        let name: Arc<str> = format!("shop/b{at}:80").into();
        let backend = metrics.backend(&name);
        drop(backend.connection_opened());
        backend.answered(200, Duration::from_millis(1));
        live.backends.push(LiveBackend {
            name,
            is_used: true,
            endpoints: vec![("10.0.0.1:8080".to_owned(), true)],
            ..LiveBackend::default()
        });
    }
    let mut text = String::new();
    metrics.encode(&live, Format::Text, &mut text);
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!((95_000..100_000).contains(&series), "{series}");
}

#[test]
fn both_forms_tell_the_same_and_the_former_names_tell_it_again() {
    let metrics = busy();
    metrics
        .route("Http/shop/cart", "web")
        .exemplify(0xab, Duration::from_millis(3));
    let mut open = String::new();
    metrics.encode(&Live::default(), Format::OpenMetrics, &mut open);
    let exemplar = " # {trace_id=\"000000000000000000000000000000ab\"} 0.003 ";
    assert_eq!(open.matches(exemplar).count(), 1, "{open}");
    assert!(open.contains("# TYPE nantian_gateway_dataplane_http_requests counter\n"));
    // The name without its suffix belongs to a histogram.
    let other = "nantian_gateway_dataplane_traffic_upstream_connect_latency_ms_total";
    assert!(open.contains(&format!("# TYPE {other} unknown\n")));
    let families = |text: &str| text.matches("# TYPE ").count();
    let count = families(&open);
    assert_eq!(count, reference().len());
    repeat_with_former_names(&mut open, 0);
    end(Format::OpenMetrics, &mut open);
    let usual = reference()
        .iter()
        .filter(|it| !it.name.starts_with(PREFIX))
        .count();
    assert_eq!(families(&open), 2 * count - usual);
    assert!(
        open.contains("\nnantian_gw_dataplane_listener_count 2\n"),
        "{open}"
    );
    assert!(open.ends_with("# EOF\n"));
}

#[test]
fn sums_hold_over_all_threads() {
    let metrics = Metrics::with_shards(ShardCount::new(4));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let route = metrics.route("Http/a/b", "web");
                for _ in 0..1000 {
                    let _guard = route.listener().request_started();
                    route.observe(204, Reason::Ok, Duration::from_millis(1), 2, 3);
                }
            });
        }
    });
    let samples = scrape(&metrics);
    let route = "listener=\"web\",route=\"Http/a/b\"";
    assert_eq!(
        samples[&format!("http_responses_total{{{route},status_code=\"204\"}}")],
        "4000"
    );
    assert_eq!(
        samples[&format!("http_request_duration_seconds_count{{{route}}}")],
        "4000"
    );
    assert_eq!(
        samples[&format!("http_received_bytes_total{{{route}}}")],
        "8000"
    );
    assert_eq!(
        samples["http_listener_inflight_current{listener=\"web\"}"],
        "0"
    );
}
