//! What telling about one request costs: its metrics and its access log line.
//!
//! Run with `cargo bench -p dataplane-telemetry`. `contended` means that another thread does the
//! same on the same route all the while. The goals for `/metrics` are printed beside its figures.

#![expect(
    clippy::print_stdout,
    reason = "a bench prints what criterion cannot measure"
)]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use dataplane_telemetry::Reason;
use dataplane_telemetry::access_log::{AccessLog, Destination, Record, Settings, Sink};
use dataplane_telemetry::metrics::Metrics;

fn observe(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let route = metrics.route("Http/shop/cart", "web");
    let backend = metrics.backend(&"shop/cart:80".into());
    let observe = || {
        black_box(&backend).answered(black_box(200), Duration::from_micros(black_box(700)));
        let _inflight = black_box(&route).listener().request_started();
        route.observe(
            black_box(200),
            Reason::Ok,
            Duration::from_micros(black_box(900)),
            300,
            1500,
        );
    };
    criterion.bench_function("metrics/observe", |b| b.iter(observe));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                observe();
            }
        });
        criterion.bench_function("metrics/observe_contended", |b| b.iter(observe));
        stop.store(true, Ordering::Relaxed);
    });
}

fn encode(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    for route in 0..5000 {
        let handle = metrics.route(&format!("Http/shop/route-{route}"), "web");
        handle.observe(200, Reason::Ok, Duration::from_millis(1), 1, 1);
        let backend = metrics.backend(&format!("shop/backend-{route}:80").into());
        drop(backend.connection_opened());
        backend.answered(200, Duration::from_millis(1));
    }
    let mut text = String::new();
    let began = Instant::now();
    metrics.encode_text(&mut text);
    let took = began.elapsed();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    println!("5,000 routes: {series} series, the goal is 100,000; {took:?}, the goal is 200 ms");
    criterion.bench_function("metrics/encode_5000_routes", |b| {
        b.iter(|| {
            text.clear();
            metrics.encode_text(&mut text);
        });
    });
}

fn access_line(criterion: &mut Criterion) {
    let sink = Sink::File("/dev/null".into());
    let Ok(log) = AccessLog::start(Settings {
        sink,
        ..Settings::default()
    }) else {
        return;
    };
    let writer = log.writer();
    let record = Record {
        timestamp: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        latency: Duration::from_micros(830),
        listener: "shop/web/http",
        client_ip: Ipv4Addr::new(203, 0, 113, 77).into(),
        client_port: 40_000,
        scheme: "http",
        method: "GET",
        host: b"shop.example.com",
        path: b"/api/v2/items/31337?fields=name,price",
        protocol: "HTTP/1.1",
        status: 200,
        bytes_received: 412,
        bytes_sent: 1320,
        destination: Destination {
            route: Some("Http/shop/cart"),
            rule: Some(0),
            backend: Some("shop/cart:80"),
            upstream_addr: Some((Ipv4Addr::new(10, 1, 2, 3), 8080).into()),
            attempts: 1,
            ..Destination::NOWHERE
        },
        request_id: b"0b0f0c7e-54a3-4d1e-9a3a-1f2e3d4c5b6a",
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
        referer: b"https://shop.example.com/",
        snapshot_version: "7f3a9c",
        ..Record::unknown()
    };
    criterion.bench_function("access_log/line", |b| {
        b.iter(|| writer.write(black_box(&record)))
    });
    let exotic = Record {
        path: "/größe/\"x\"".as_bytes(),
        ..record.clone()
    };
    criterion.bench_function("access_log/line_escaped", |b| {
        b.iter(|| writer.write(black_box(&exotic)));
    });
    drop(writer);
    log.stop(Duration::from_secs(5));
}

criterion_group!(benches, observe, encode, access_line);
criterion_main!(benches);
