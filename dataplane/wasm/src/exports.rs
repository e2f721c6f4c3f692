//! What a guest can be called for, looked up once when an instance comes up.
//!
//! Made by `instance` and used by it alone. Callbacks that a module lacks, or that its plugin is not to be
//! called for, are simply not there.

use wasmtime::{Instance, Store, TypedFunc, WasmParams, WasmResults};

use crate::host::Host;
use crate::settings::Hooks;

/// Callbacks of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Has {
    pub(crate) head: bool,
    pub(crate) body: bool,
    pub(crate) trailers: bool,
}

/// Callbacks for requests and for responses.
pub(crate) type Callbacks = [Has; 2];

pub(crate) type Fn1 = TypedFunc<u32, ()>;
pub(crate) type Fn2<R> = TypedFunc<(u32, u32), R>;
pub(crate) type Fn5 = TypedFunc<(u32, u32, u32, u32, u32), ()>;
pub(crate) type Fn3<R> = TypedFunc<(u32, u32, u32), R>;

/// A callback for heads; before 0.2.0 it is not told whether a body follows.
#[derive(Clone)]
pub(crate) enum OnHead {
    Short(Fn2<u32>),
    Long(Fn3<u32>),
}

/// What the guest can be called for.
#[derive(Default)]
pub(crate) struct Exports {
    /// It has the interface of the earlier data plane, and is made anew for every call.
    pub(crate) is_earlier: bool,
    pub(crate) context_create: Option<Fn2<()>>,
    pub(crate) vm_start: Option<Fn2<u32>>,
    pub(crate) configure: Option<Fn2<u32>>,
    pub(crate) tick: Option<Fn1>,
    pub(crate) queue_ready: Option<Fn2<()>>,
    /// Of requests and of responses, as are the next two.
    pub(crate) head: [Option<OnHead>; 2],
    pub(crate) body: [Option<Fn3<u32>>; 2],
    pub(crate) trailers: [Option<Fn2<u32>>; 2],
    pub(crate) http_call_response: Option<Fn5>,
    pub(crate) grpc_head: Option<Fn3<()>>,
    pub(crate) grpc_message: Option<Fn3<()>>,
    pub(crate) grpc_trailers: Option<Fn3<()>>,
    pub(crate) grpc_close: Option<Fn3<()>>,
    pub(crate) done: Option<TypedFunc<u32, u32>>,
    pub(crate) log: Option<Fn1>,
    pub(crate) delete: Option<Fn1>,
}

/// The export of that name; an error when it has another signature.
pub(crate) fn export<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<Host>,
    name: &str,
) -> wasmtime::Result<Option<TypedFunc<P, R>>> {
    match instance.get_func(&mut *store, name) {
        Some(func) => Ok(Some(func.typed(&*store)?)),
        None => Ok(None),
    }
}

impl Exports {
    pub(crate) fn of(instance: &Instance, store: &mut Store<Host>) -> wasmtime::Result<Self> {
        let mut head = [None, None];
        let mut body = [None, None];
        let mut trailers = [None, None];
        for at in 0..2 {
            let name = ["proxy_on_request_headers", "proxy_on_response_headers"][at];
            head[at] = match export(instance, store, name) {
                Ok(long) => long.map(OnHead::Long),
                Err(_) => export(instance, store, name)?.map(OnHead::Short),
            };
            let name = ["proxy_on_request_body", "proxy_on_response_body"][at];
            body[at] = export(instance, store, name)?;
            let name = ["proxy_on_request_trailers", "proxy_on_response_trailers"][at];
            trailers[at] = export(instance, store, name)?;
        }
        Ok(Self {
            is_earlier: false,
            context_create: export(instance, store, "proxy_on_context_create")?,
            vm_start: export(instance, store, "proxy_on_vm_start")?,
            configure: export(instance, store, "proxy_on_configure")?,
            tick: export(instance, store, "proxy_on_tick")?,
            queue_ready: export(instance, store, "proxy_on_queue_ready")?,
            head,
            body,
            trailers,
            http_call_response: export(instance, store, "proxy_on_http_call_response")?,
            grpc_head: export(instance, store, "proxy_on_grpc_receive_initial_metadata")?,
            grpc_message: export(instance, store, "proxy_on_grpc_receive")?,
            grpc_trailers: export(instance, store, "proxy_on_grpc_receive_trailing_metadata")?,
            grpc_close: export(instance, store, "proxy_on_grpc_close")?,
            done: export(instance, store, "proxy_on_done")?,
            log: export(instance, store, "proxy_on_log")?,
            delete: export(instance, store, "proxy_on_delete")?,
        })
    }

    /// Whether it is called when a stream is over.
    pub(crate) fn has_end(&self) -> bool {
        self.done.is_some() || self.log.is_some()
    }

    pub(crate) fn callbacks(&self, hooks: Hooks) -> Callbacks {
        let of = |at: usize, heads: bool, bodies: bool| Has {
            head: heads && self.head[at].is_some(),
            body: bodies && self.body[at].is_some(),
            trailers: bodies && self.trailers[at].is_some(),
        };
        [
            of(0, hooks.request_head, hooks.request_body),
            of(
                1,
                hooks.response_head || self.is_earlier,
                hooks.response_body,
            ),
        ]
    }
}
