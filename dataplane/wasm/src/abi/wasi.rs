//! The part of WASI preview 1 that language runtimes need to come up, and refusals for the rest.
//!
//! There are no files, no arguments, no environment and no sockets. Output goes into the log; clocks and
//! random numbers are real; ending the process is a trap of the instance.

use std::fs::File;
use std::io::Read as _;
use std::sync::OnceLock;

use wasmtime::Linker;

use crate::host::Host;

use super::state::{LINE_BYTES_MAX, wall_clock};
use super::{Done, Guest, Status, Stop, handed, put, put_number};

/// Numbers of errors.
const BAD_FILE: u32 = 8;
const BAD_ADDRESS: u32 = 21;
const INVALID: u32 = 28;
const NOT_CAPABLE: u32 = 76;
/// What calls say that are not there at all.
pub(crate) const NOT_THERE: i32 = 52;

/// Random bytes given at once.
const RANDOM_BYTES_MAX: u32 = 64 * 1024;
/// Pieces of one write, and subscriptions of one poll.
const PIECES_MAX: u32 = 64;

/// Links a function under its name; a bad pointer is told as such.
macro_rules! wasi {
    ($linker:ident, $module:ident, $( $name:literal ($($arg:ident: $type:ty),*) $body:expr; )+) => {
        $(
            $linker.func_wrap($module, $name, |mut guest: Guest<'_>, $($arg: $type),*| {
                #[expect(clippy::redundant_closure_call, reason = "its question marks end here")]
                let ended: Result<u32, Stop> = (|| $body(&mut guest, $($arg),*))();
                answered(ended)
            })?;
        )+
    };
}

fn answered(ended: Result<u32, Stop>) -> wasmtime::Result<u32> {
    match ended {
        Ok(number) => Ok(number),
        Err(Stop::Told(Status::InvalidMemoryAccess)) => Ok(BAD_ADDRESS),
        Err(Stop::Told(_)) => Ok(INVALID),
        Err(Stop::Trapped(error)) => Err(error),
    }
}

pub(super) fn link(linker: &mut Linker<Host>, module: &str) -> wasmtime::Result<()> {
    wasi!(linker, module,
        "args_sizes_get"(count: u32, bytes: u32) nothing;
        "environ_sizes_get"(count: u32, bytes: u32) nothing;
        "args_get"(_list: u32, _texts: u32) |_: &mut Guest<'_>, _, _| Ok(0);
        "environ_get"(_list: u32, _texts: u32) |_: &mut Guest<'_>, _, _| Ok(0);
        "clock_res_get"(_clock: u32, out: u32) |guest: &mut Guest<'_>, _, out| number(put(guest, out, &1_u64.to_le_bytes()));
        "clock_time_get"(clock: u32, _precision: u64, out: u32) clock_time;
        "random_get"(out: u32, length: u32) random;
        "fd_write"(file: u32, pieces: u32, count: u32, written: u32) write;
        "fd_read"(_file: u32, _pieces: u32, _count: u32, _read: u32) |_: &mut Guest<'_>, _, _, _, _| Ok(BAD_FILE);
        "fd_close"(_file: u32) |_: &mut Guest<'_>, _| Ok(BAD_FILE);
        "fd_fdstat_get"(file: u32, out: u32) file_status;
        "fd_fdstat_set_flags"(_file: u32, _flags: u32) |_: &mut Guest<'_>, _, _| Ok(BAD_FILE);
        "fd_prestat_get"(_file: u32, _out: u32) |_: &mut Guest<'_>, _, _| Ok(BAD_FILE);
        "fd_prestat_dir_name"(_file: u32, _out: u32, _length: u32) |_: &mut Guest<'_>, _, _, _| Ok(BAD_FILE);
        "fd_seek"(_file: u32, _by: u64, _from: u32, _out: u32) |_: &mut Guest<'_>, _, _, _, _| Ok(BAD_FILE);
        "path_open"(_a: u32, _b: u32, _c: u32, _d: u32, _e: u32, _f: u64, _g: u64, _h: u32, _i: u32)
            |_: &mut Guest<'_>, _, _, _, _, _, _, _, _, _| Ok(NOT_CAPABLE);
        "poll_oneoff"(subscriptions: u32, events: u32, count: u32, out: u32) poll;
        "sched_yield"() |_: &mut Guest<'_>| Ok(0);
    );
    linker.func_wrap(module, "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg(format!(
            "the plugin ended itself with code {code}"
        )))
    })?;
    Ok(())
}

fn number(done: Done) -> Result<u32, Stop> {
    done.map(|()| 0)
}

fn nothing(guest: &mut Guest<'_>, count: u32, bytes: u32) -> Result<u32, Stop> {
    put_number(guest, count, 0)?;
    number(put_number(guest, bytes, 0))
}

fn clock_time(guest: &mut Guest<'_>, clock: u32, _: u64, out: u32) -> Result<u32, Stop> {
    let time = match clock {
        0 => wall_clock(),
        1..=3 => u64::try_from(guest.data().started.elapsed().as_nanos()).unwrap_or(u64::MAX),
        _ => return Ok(INVALID),
    };
    number(put(guest, out, &time.to_le_bytes()))
}

fn random(guest: &mut Guest<'_>, out: u32, length: u32) -> Result<u32, Stop> {
    static SOURCE: OnceLock<Option<File>> = OnceLock::new();
    if length > RANDOM_BYTES_MAX {
        return Ok(INVALID);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let source = SOURCE.get_or_init(|| File::open("/dev/urandom").ok());
    let Some(mut source) = source.as_ref() else {
        return Ok(NOT_THERE.cast_unsigned());
    };
    match source.read_exact(&mut bytes) {
        Ok(()) => number(put(guest, out, &bytes)),
        Err(_) => Ok(NOT_THERE.cast_unsigned()),
    }
}

/// Standard output and errors go into the log.
fn write(
    guest: &mut Guest<'_>,
    file: u32,
    pieces: u32,
    count: u32,
    written: u32,
) -> Result<u32, Stop> {
    if !matches!(file, 1 | 2) {
        return Ok(BAD_FILE);
    }
    if count > PIECES_MAX {
        return Ok(INVALID);
    }
    let (list, _) = handed(guest, pieces, count * 8)?;
    let list: Vec<_> = list
        .as_chunks::<4>()
        .0
        .iter()
        .map(|it| u32::from_le_bytes(*it))
        .collect();
    let (mut total, mut line) = (0_u32, Vec::new());
    for piece in list.as_chunks::<2>().0 {
        let [start, length] = *piece;
        let (bytes, _) = handed(guest, start, length)?;
        let room = LINE_BYTES_MAX - line.len();
        line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        total = total.saturating_add(length);
    }
    let line = String::from_utf8_lossy(&line);
    let level = if file == 1 { 2 } else { 4 };
    if !line.trim_end().is_empty() {
        guest.data_mut().log(level, line.trim_end());
    }
    number(put_number(guest, written, total))
}

/// The three standard files are character devices.
fn file_status(guest: &mut Guest<'_>, file: u32, out: u32) -> Result<u32, Stop> {
    if file > 2 {
        return Ok(BAD_FILE);
    }
    let mut status = [0; 24];
    status[0] = 2;
    number(put(guest, out, &status))
}

/// Nobody sleeps here: whatever is waited for is there at once.
fn poll(
    guest: &mut Guest<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    out: u32,
) -> Result<u32, Stop> {
    const SUBSCRIPTION: usize = 48;
    if count == 0 || count > PIECES_MAX {
        return Ok(INVALID);
    }
    let (asked, _) = handed(guest, subscriptions, count * 48)?;
    let mut told = Vec::new();
    for one in asked.as_chunks::<SUBSCRIPTION>().0 {
        let mut event = [0; 32];
        event[..8].copy_from_slice(&one[..8]);
        event[10] = one[8];
        told.extend_from_slice(&event);
    }
    put(guest, events, &told)?;
    number(put_number(guest, out, count))
}
