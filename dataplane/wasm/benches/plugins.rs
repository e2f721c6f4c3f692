//! What plugins cost: one on the heads of a request, a body transform beside the same code native, a
//! hundred of them in memory, how soon a loop is stopped, and requests while a module is compiled.
//!
//! Goals: 10 µs a request, twice native, 200 MiB, the limit and 5 ms, the same p99 as without.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking, and prints what criterion cannot measure"
)]

use std::fs;
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane_telemetry::metrics::Metrics;
use dataplane_wasm::facts::NoFacts;
use dataplane_wasm::head::Head;
use dataplane_wasm::settings::Settings;
use dataplane_wasm::{Direction, Instances, Piece, Plugin, Plugins, Stream};
use http::{HeaderMap, HeaderValue};
use memchr::memmem::Finder;

const BODY_BYTES: usize = 64 * 1024;
/// Requests of one measurement beside criterion's.
const HEADS: u32 = 100_000;
/// Bodies of one.
const BODIES: u32 = 1_000;

/// Reads a field and writes another; loops on the heads of responses.
fn module(salt: usize) -> String {
    format!(
        r#"(module
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 4)
        (global (export "salt") i32 (i32.const {salt}))
        (data (i32.const 0) "x-user" "x-seen")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
        (func (export "proxy_on_delete") (param i32))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $get (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 100) (i32.const 104)))
          (drop (call $replace (i32.const 0) (i32.const 6) (i32.const 6) (i32.load (i32.const 100)) (i32.load (i32.const 104))))
          (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (loop $l (br $l)) unreachable))"#
    )
}

struct Loaded {
    plugins: Plugins,
    metrics: Arc<Metrics>,
}

impl Loaded {
    fn plugin(&self, number: usize) -> Arc<Plugin> {
        let module = self
            .plugins
            .module(module(number).as_bytes(), false)
            .unwrap();
        let settings = Settings::named(&format!("shop/{number}"));
        self.plugins.plugin(Ok(module), settings, &self.metrics)
    }
}

/// Runs a future that never waits.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return done;
        }
    }
}

fn stream(instances: &Instances, plugin: &Arc<Plugin>) -> Stream {
    Stream::new(instances, plugin, Rc::new(NoFacts))
}

fn head() -> Head {
    let mut fields = HeaderMap::new();
    for name in ["accept", "user-agent", "x-user", "x-request-id"] {
        fields.insert(name, HeaderValue::from_static("some-value"));
    }
    Head::of(fields)
}

/// As in `examples/wasm/plugins/examples/transform_response.rs`.
fn upper(body: &mut [u8]) {
    let (blocks, rest) = body.as_chunks_mut::<128>();
    for block in blocks {
        block.make_ascii_uppercase();
    }
    rest.make_ascii_uppercase();
}

/// As in `examples/wasm/plugins/examples/redact_body.rs`.
fn redact(body: &mut [u8]) {
    static WORD: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("secret"));
    let mut at = 0;
    while let Some(found) = WORD.find(&body[at..]) {
        at += found;
        body[at..at + WORD.needle().len()].fill(b'*');
    }
}

fn text() -> Bytes {
    let mut body =
        b"All that is said in here may be told, but this is a secret. ".repeat(BODY_BYTES / 60 + 1);
    body.truncate(BODY_BYTES);
    body.into()
}

/// Body transforms: the same Rust source, built for WebAssembly by `examples/wasm/build`, and native.
fn bodies(c: &mut Criterion) {
    type Native = fn(&mut [u8]);
    let cases: [(&str, Direction, &str, Native); 2] = [
        ("transform_response", Direction::Response, "{}", upper),
        (
            "redact_body",
            Direction::Request,
            r#"{"word": "secret"}"#,
            redact,
        ),
    ];
    let (plugins, metrics, body) = (Plugins::default(), Metrics::new(), text());
    let mut group = c.benchmark_group("body");
    group.throughput(Throughput::Bytes(BODY_BYTES as u64));
    for (name, direction, config, native) in cases {
        group.bench_function(format!("{name}/native"), |b| {
            b.iter(|| {
                let mut copy = body.to_vec();
                native(black_box(&mut copy));
                Piece::Pass(copy.into())
            });
        });
        let path = format!(
            "{}/../../examples/wasm/modules/{name}.wasm",
            env!("CARGO_MANIFEST_DIR")
        );
        let Ok(module) = fs::read(path) else {
            println!("SKIPPED: {name} as a plugin, for which examples/wasm/build makes the module");
            continue;
        };
        let module = plugins.module(&module, false).unwrap();
        let mut settings = Settings::named(&format!("shop/{name}"));
        settings.config = config.into();
        let plugin = plugins.plugin(Ok(module), settings, &metrics);
        let instances = Instances::default();
        let stream = stream(&instances, &plugin);
        let mut head = head();
        let kind = HeaderValue::from_static("text/plain");
        head.fields.insert("content-type", kind);
        block_on(stream.head(direction, &mut head, false)).unwrap();
        let pass = || block_on(stream.body(direction, body.clone(), true)).unwrap();
        let mut expected = body.to_vec();
        native(&mut expected);
        assert!(
            matches!(pass(), Piece::Pass(passed) if passed == expected),
            "{name}"
        );
        group.bench_function(format!("{name}/plugin"), |b| b.iter(pass));
        let timed = |work: &mut dyn FnMut()| {
            let began = Instant::now();
            (0..BODIES).for_each(|_| work());
            began.elapsed()
        };
        let alone = timed(&mut || {
            let mut copy = body.to_vec();
            native(black_box(&mut copy));
            black_box(Bytes::from(copy));
        });
        let plugged = timed(&mut || {
            black_box(pass());
        });
        let times = plugged.as_secs_f64() / alone.as_secs_f64();
        println!("{name}: {times:.2} times as long as native; the goal is twice");
    }
    group.finish();
}

fn plugins(c: &mut Criterion) {
    let loaded = Loaded {
        plugins: Plugins::default(),
        metrics: Metrics::new(),
    };
    let (plugin, instances) = (loaded.plugin(0), Instances::default());
    let blank = head();
    c.bench_function("heads", |b| {
        b.iter(|| {
            let stream = stream(&instances, &plugin);
            let mut head = blank.clone();
            block_on(stream.head(Direction::Request, &mut head, true)).unwrap();
            head
        });
    });
    let began = Instant::now();
    for _ in 0..HEADS {
        let stream = stream(&instances, &plugin);
        let mut head = blank.clone();
        block_on(stream.head(Direction::Request, &mut head, true)).unwrap();
    }
    let each = began.elapsed() / HEADS;
    println!("a plugin on the head of a request: {each:?}; the goal is 10 µs");
    told(&loaded, &plugin, &instances);
}

/// What criterion does not measure.
fn told(loaded: &Loaded, plugin: &Arc<Plugin>, instances: &Instances) {
    let mut worst = Duration::ZERO;
    for _ in 0..4 {
        let stream = stream(instances, plugin);
        let began = Instant::now();
        let _ = block_on(stream.head(Direction::Response, &mut head(), true));
        worst = worst.max(began.elapsed());
        std::thread::sleep(Duration::from_secs(1));
    }
    let limit = plugin.settings().limits.call_time;
    let goal = limit + Duration::from_millis(5);
    println!(
        "a loop is stopped after {worst:?} at the latest; its limit is {limit:?}, the goal {goal:?}"
    );
    while_compiling(plugin);
    let before = resident_kib();
    let many: Vec<_> = (1..=100).map(|number| loaded.plugin(number)).collect();
    let workers = [Instances::default(), Instances::default()];
    for worker in &workers {
        for plugin in &many {
            let stream = stream(worker, plugin);
            block_on(stream.head(Direction::Request, &mut head(), true)).unwrap();
        }
    }
    let grown = resident_kib().saturating_sub(before);
    println!(
        "100 plugins with an instance on each of two workers: {grown} KiB; the goal is {} KiB",
        200 * 1024
    );
    let before = resident_kib();
    let further = Instances::default();
    for plugin in &many {
        let stream = stream(&further, plugin);
        block_on(stream.head(Direction::Request, &mut head(), true)).unwrap();
    }
    let each = resident_kib().saturating_sub(before) / 100;
    println!(
        "one more instance, its memory included: {each} KiB; the goal is 64 KiB beside its memory"
    );
}

/// Calls that come regularly on every core, without and with a compiler beside them.
fn while_compiling(plugin: &Arc<Plugin>) {
    let big = large_module();
    let kib = big.len() / 1024;
    let alone = p99(plugin, || std::thread::sleep(Duration::from_secs(2)));
    let (plugins, metrics) = (Arc::new(Plugins::default()), Metrics::new());
    let mut took = Duration::ZERO;
    let beside = p99(plugin, || {
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let compiling = plugins.compiled(big.into(), false, metrics);
        runtime.block_on(compiling).unwrap();
        took = began.elapsed();
    });
    println!(
        "a call every {PACE:?} on every core: p99 {alone:?} alone, {beside:?} while a module of {kib} KiB \
         of text is compiled, which took {took:?}; the goal is no difference"
    );
}

/// How often a call comes.
const PACE: Duration = Duration::from_micros(200);

/// The time from when a call was due to its end that 99 of 100 keep to, while `work` is done.
fn p99(plugin: &Arc<Plugin>, work: impl FnOnce()) -> Duration {
    let is_over = AtomicBool::new(false);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..cores)
            .map(|_| scope.spawn(|| paced(plugin, &is_over)))
            .collect();
        work();
        is_over.store(true, Ordering::Relaxed);
        let times = callers
            .into_iter()
            .flat_map(|caller| caller.join().unwrap());
        times.collect::<Vec<_>>()
    });
    all.sort();
    all[all.len() * 99 / 100]
}

fn paced(plugin: &Arc<Plugin>, is_over: &AtomicBool) -> Vec<Duration> {
    let instances = Instances::default();
    let mut times = Vec::new();
    let mut due = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let stream = stream(&instances, plugin);
        block_on(stream.head(Direction::Request, &mut head(), true)).unwrap();
        drop(stream);
        times.push(due.elapsed());
        due += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    times
}

/// A module that takes the compiler about as long as one of a megabyte.
fn large_module() -> Vec<u8> {
    let mut functions = String::new();
    for number in 0..4_000 {
        functions +=
            &format!("(func (export \"f{number}\") (param $a i32) (param $b i32) (result i32)");
        for step in 0..24 {
            functions += &format!(
                "(local.set $a (i32.add (i32.mul (local.get $a) (i32.const {})) (local.get $b)))\
                 (if (i32.gt_u (local.get $a) (local.get $b)) (then (local.set $b (i32.const {step}))))",
                number * 31 + step
            );
        }
        functions += "(local.get $a))";
    }
    let text = format!(
        r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")) {functions})"#
    );
    text.into_bytes()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

criterion_group!(benches, plugins, bodies);
criterion_main!(benches);
