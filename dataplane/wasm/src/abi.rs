//! The host calls of the proxy-wasm ABI (0.1.0, 0.2.0, 0.2.1): what a guest may import, and their rules.
//! Those of the interface before it are in `earlier`.
//!
//! Here are the table of names and the way into a guest's memory: every pointer and length that a guest
//! gives is checked, and what it gets is written to room that it gave. What the calls do stands in
//! `abi/*.rs`. No host call waits: what takes time is noted in [`Host`] and done by `instance`.

use std::sync::Arc;

use dataplane_telemetry::metrics::Metrics;
use wasmtime::{Caller, Extern, Linker, Memory, Store};

use crate::host::Host;
use crate::settings::Settings;
use crate::shared::Shared;

mod calls;
pub(crate) mod earlier;
mod grpc;
mod messages;
mod property;
mod state;
mod wasi;

pub(crate) use wasi::NOT_THERE;

/// The largest piece that a guest can hand over or be given at once.
const PIECE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How a host call ended, as the ABI numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// Why a host call gives nothing: the guest is told, or it is stopped.
pub(crate) enum Stop {
    Told(Status),
    Trapped(wasmtime::Error),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Told(status)
    }
}

impl From<wasmtime::Error> for Stop {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trapped(error)
    }
}

pub(crate) type Done = Result<(), Stop>;
pub(crate) type Guest<'a> = Caller<'a, Host>;

/// What the guest sees of it.
fn told(done: Done) -> wasmtime::Result<u32> {
    match done {
        Ok(()) => Ok(Status::Ok as u32),
        Err(Stop::Told(status)) => Ok(status as u32),
        Err(Stop::Trapped(error)) => Err(error),
    }
}

/// Links a function of 32-bit arguments under its name.
macro_rules! link {
    ($linker:ident, $module:literal, $( $name:literal => $function:path, [$($arg:ident),*]; )+) => {
        $(
            $linker.func_wrap(
                $module,
                $name,
                |mut guest: Guest<'_>, $($arg: u32),*| told($function(&mut guest, $($arg),*)),
            )?;
        )+
    };
}

/// Everything that a guest may import.
pub(crate) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    link_messages(linker)?;
    link_state(linker)?;
    link!(linker, "env",
        "proxy_http_call" => calls::http, [cluster, cluster_len, head, head_len, body, body_len, trailers, trailers_len, timeout, id];
        "proxy_grpc_call" => grpc::call, [a, b, c, d, e, f, g, h, i, j, k, l];
        "proxy_grpc_stream" => grpc::stream, [a, b, c, d, e, f, g, h, i];
        "proxy_grpc_send" => grpc::send, [a, b, c, d];
        "proxy_grpc_cancel" => grpc::cancel, [id];
        "proxy_grpc_close" => grpc::close, [id];
        "proxy_call_foreign_function" => calls::foreign, [name, name_len, data, data_len, out, out_len];
        "proxy_get_status" => grpc::status, [code, message, message_len];
    );
    wasi::link(linker, "wasi_snapshot_preview1")?;
    wasi::link(linker, "wasi_unstable")?;
    earlier::link(linker)
}

fn link_messages(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    link!(linker, "env",
        "proxy_get_buffer_bytes" => messages::get_buffer, [kind, start, length, out, out_len];
        "proxy_get_buffer_status" => messages::buffer_status, [kind, length, flags];
        "proxy_set_buffer_bytes" => messages::set_buffer, [kind, start, length, data, data_len];
        "proxy_get_header_map_pairs" => messages::pairs, [kind, out, out_len];
        "proxy_set_header_map_pairs" => messages::set_pairs, [kind, data, data_len];
        "proxy_get_header_map_size" => messages::pairs_size, [kind, size];
        "proxy_get_header_map_value" => messages::value, [kind, name, name_len, out, out_len];
        "proxy_add_header_map_value" => messages::add, [kind, name, name_len, value, value_len];
        "proxy_replace_header_map_value" => messages::replace, [kind, name, name_len, value, value_len];
        "proxy_remove_header_map_value" => messages::remove, [kind, name, name_len];
        "proxy_continue_stream" => messages::resume, [kind];
        "proxy_close_stream" => messages::close, [kind];
        "proxy_continue_request" => messages::resume_request, [];
        "proxy_continue_response" => messages::resume_response, [];
        "proxy_clear_route_cache" => messages::clear_route_cache, [];
        "proxy_send_local_response" => messages::reply, [status, details, details_len, body, body_len, fields, fields_len, grpc];
    );
    Ok(())
}

fn link_state(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    link!(linker, "env",
        "proxy_log" => state::log, [level, line, line_len];
        "proxy_get_log_level" => state::log_level, [level];
        "proxy_get_current_time_nanoseconds" => state::time, [out];
        "proxy_set_tick_period_milliseconds" => state::tick, [period];
        "proxy_get_configuration" => state::configuration, [out, out_len];
        "proxy_set_effective_context" => state::effective, [context];
        "proxy_done" => state::done, [];
        "proxy_get_property" => property::get, [path, path_len, out, out_len];
        "proxy_set_property" => property::set, [path, path_len, value, value_len];
        "proxy_get_shared_data" => state::data, [key, key_len, out, out_len, cas];
        "proxy_set_shared_data" => state::set_data, [key, key_len, value, value_len, cas];
        "proxy_register_shared_queue" => state::register_queue, [name, name_len, id];
        "proxy_resolve_shared_queue" => state::resolve_queue, [vm, vm_len, name, name_len, id];
        "proxy_dequeue_shared_queue" => state::dequeue, [id, out, out_len];
        "proxy_enqueue_shared_queue" => state::enqueue, [id, data, data_len];
        "proxy_define_metric" => state::define_metric, [kind, name, name_len, id];
        "proxy_get_metric" => state::metric, [id, out];
    );
    // These take 64 bits.
    linker.func_wrap(
        "env",
        "proxy_increment_metric",
        |mut guest: Guest<'_>, id: u32, by: i64| told(state::increment_metric(&mut guest, id, by)),
    )?;
    linker.func_wrap(
        "env",
        "proxy_record_metric",
        |mut guest: Guest<'_>, id: u32, value: u64| {
            told(state::record_metric(&mut guest, id, value))
        },
    )?;
    // What Emscripten and AssemblyScript import besides.
    linker.func_wrap("env", "emscripten_notify_memory_growth", |_: u32| ())?;
    linker.func_wrap(
        "env",
        "abort",
        |_: u32, _: u32, _: u32, _: u32| -> wasmtime::Result<()> {
            Err(wasmtime::Error::msg("the plugin called abort"))
        },
    )?;
    Ok(())
}

/// A function that a plugin may import.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// Where it stands, such as `env`.
    pub module: String,
    /// Its name.
    pub name: String,
    /// The types of its arguments, such as `i32`.
    pub parameters: Vec<String>,
    /// The type of what it gives back; most give a status.
    pub result: Option<String>,
}

/// Every function that a plugin may import, in the order of their names. The rest of WASI is there, too,
/// and answers that it is not implemented.
///
/// The error says why plugins cannot run on this machine.
pub fn imports() -> Result<Vec<Import>, String> {
    let wrong = |error: wasmtime::Error| format!("{error:#}");
    let engine = wasmtime::Engine::default();
    let mut linker = Linker::new(&engine);
    link(&mut linker).map_err(wrong)?;
    let shared = Shared::new(Arc::default(), Metrics::new().plugin(""));
    let host = Host::new(Arc::new(Settings::named("")), Arc::new(shared), None);
    let mut store = Store::new(&engine, host);
    let all: Vec<_> = linker.iter(&mut store).collect();
    let all = all.into_iter().filter_map(|(module, name, it)| {
        let kind = it.into_func()?.ty(&store);
        Some(Import {
            parameters: kind.params().map(|it| it.to_string()).collect(),
            result: kind.results().next().map(|it| it.to_string()),
            module: module.to_owned(),
            name: name.to_owned(),
        })
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    Ok(all)
}

/// The guest's memory.
fn memory(guest: &mut Guest<'_>) -> Result<Memory, Stop> {
    if let Some(memory) = guest.data().memory {
        return Ok(memory);
    }
    // While it starts it has not been looked up yet.
    match guest.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory),
        _ => Err(Status::InvalidMemoryAccess.into()),
    }
}

fn range(start: u32, length: u32) -> Result<std::ops::Range<usize>, Stop> {
    let bad = Status::InvalidMemoryAccess;
    let start = usize::try_from(start).map_err(|_| bad)?;
    let length = usize::try_from(length).map_err(|_| bad)?;
    if length > PIECE_BYTES_MAX {
        return Err(Status::BadArgument.into());
    }
    Ok(start..start.checked_add(length).ok_or(bad)?)
}

/// What the guest hands over, in its memory, beside what the host keeps.
fn handed<'a>(
    guest: &'a mut Guest<'_>,
    start: u32,
    length: u32,
) -> Result<(&'a [u8], &'a mut Host), Stop> {
    let range = range(start, length)?;
    let memory = memory(guest)?;
    let (bytes, host) = memory.data_and_store_mut(guest);
    let bytes = bytes.get(range).ok_or(Status::InvalidMemoryAccess)?;
    Ok((bytes, host))
}

/// Two pieces that the guest hands over.
fn handed_two<'a>(
    guest: &'a mut Guest<'_>,
    (first, first_len): (u32, u32),
    (second, second_len): (u32, u32),
) -> Result<(&'a [u8], &'a [u8], &'a mut Host), Stop> {
    let (first, second) = (range(first, first_len)?, range(second, second_len)?);
    let memory = memory(guest)?;
    let (bytes, host) = memory.data_and_store_mut(guest);
    let bytes = &*bytes;
    let first = bytes.get(first).ok_or(Status::InvalidMemoryAccess)?;
    let second = bytes.get(second).ok_or(Status::InvalidMemoryAccess)?;
    Ok((first, second, host))
}

/// Writes bytes to a place that the guest named.
fn put(guest: &mut Guest<'_>, at: u32, bytes: &[u8]) -> Done {
    let length = u32::try_from(bytes.len()).map_err(|_| Status::BadArgument)?;
    let range = range(at, length)?;
    let memory = memory(guest)?;
    let room = memory.data_mut(guest);
    let room = room.get_mut(range).ok_or(Status::InvalidMemoryAccess)?;
    room.copy_from_slice(bytes);
    Ok(())
}

fn put_number(guest: &mut Guest<'_>, at: u32, number: u32) -> Done {
    put(guest, at, &number.to_le_bytes())
}

/// Gives bytes to the guest, in room that it allocates, and writes where they are.
fn give(guest: &mut Guest<'_>, bytes: &[u8], out: u32, out_len: u32) -> Done {
    if bytes.len() > PIECE_BYTES_MAX {
        return Err(Status::InternalFailure.into());
    }
    // Before the guest is called: it must not be for nothing.
    put_number(guest, out, 0)?;
    put_number(guest, out_len, 0)?;
    if bytes.is_empty() {
        return Ok(());
    }
    let (room, length) = room(guest, bytes.len())?;
    if room == 0 {
        return Err(Status::InternalFailure.into());
    }
    put(guest, room, bytes)?;
    put_number(guest, out, room)?;
    put_number(guest, out_len, length)
}

/// Room that the guest allocates, and its length.
fn room(guest: &mut Guest<'_>, length: usize) -> Result<(u32, u32), Stop> {
    let length = u32::try_from(length).map_err(|_| Status::InternalFailure)?;
    let allocate = match &guest.data().allocate {
        Some(allocate) => allocate.clone(),
        None => {
            let Some(Extern::Func(malloc)) = guest.get_export("malloc") else {
                return Err(Status::InternalFailure.into());
            };
            malloc.typed::<u32, u32>(&mut *guest)?
        }
    };
    Ok((allocate.call(&mut *guest, length)?, length))
}
