//! A plugin in a few lines, and requests through it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use dataplane_telemetry::metrics::Metrics;
use dataplane_wasm::facts::NoFacts;
use dataplane_wasm::head::Head;
use dataplane_wasm::settings::Settings;
use dataplane_wasm::{Instances, Plugin, Plugins, Stream};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What most modules of tests begin with: a version, memory, an allocator that gives the same room again,
/// and the imports that are used.
pub(crate) const PRELUDE: &str = r#"
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
    (import "env" "proxy_http_call" (func $http (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
    (memory (export "memory") 2)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
"#;

/// A plugin on one worker.
pub(crate) struct Bench {
    pub(crate) plugins: Plugins,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) instances: Instances,
    pub(crate) plugin: Arc<Plugin>,
}

impl Bench {
    /// A plugin of the prelude and these functions.
    pub(crate) fn new(functions: &str) -> Self {
        Self::with(functions, |_| ())
    }

    pub(crate) fn with(functions: &str, change: impl FnOnce(&mut Settings)) -> Self {
        // Imports come first in a module.
        let is_import = |line: &&str| line.trim_start().starts_with("(import");
        let imports: String = functions.lines().filter(is_import).collect();
        let rest = functions.lines().filter(|line| !is_import(line));
        let rest = rest.collect::<Vec<_>>().join("\n");
        Self::of(&format!("(module {imports} {PRELUDE} {rest})"), change)
    }

    /// A plugin of a whole module.
    pub(crate) fn of(module: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let (plugins, metrics) = (Plugins::default(), Metrics::new());
        let mut settings = Settings::named("shop/p");
        change(&mut settings);
        let is_metered = settings.limits.fuel.is_some();
        let module = plugins.module(module.as_bytes(), is_metered).unwrap();
        let plugin = plugins.plugin(Ok(module), settings, &metrics);
        Self {
            plugins,
            metrics,
            instances: Instances::default(),
            plugin,
        }
    }

    pub(crate) fn stream(&self) -> Stream {
        Stream::new(&self.instances, &self.plugin, Rc::new(NoFacts))
    }

    /// The samples of a metric that begin so.
    pub(crate) fn sample(&self, begin: &str) -> Option<String> {
        let mut text = String::new();
        self.metrics.encode_text(&mut text);
        let begin = format!("nantian_gateway_dataplane_{begin} ");
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(&begin).map(str::to_owned))
    }
}

/// `GET /path` with these fields.
pub(crate) fn request(fields: &[(&str, &str)]) -> Head {
    let pseudo = vec![
        (":method", Bytes::from_static(b"GET")),
        (":path", Bytes::from_static(b"/path?q=1")),
        (":authority", Bytes::from_static(b"a.test")),
        (":scheme", Bytes::from_static(b"http")),
    ];
    Head::new(pseudo, map(fields))
}

pub(crate) fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        let name = HeaderName::try_from(*name).unwrap();
        (name, HeaderValue::try_from(*value).unwrap())
    };
    fields.iter().map(pair).collect()
}

/// Runs on one thread, as a worker does.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
