//! Backends that do exactly what the test wrote: for hostile origins and plain TCP.
//!
//! A [`Script`] is run from the start on every connection and the connection is closed at its end.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::either::Either;

use super::{Io, Seen};

/// Longest request head a script waits for.
const HEAD_BYTES_MAX: usize = 1024 * 1024;

/// Steps of a scripted backend, in order.
#[derive(Clone, Debug, Default)]
pub struct Script(Vec<Step>);

/// One step of a [`Script`].
#[derive(Clone, Debug)]
pub enum Step {
    /// Reads up to the empty line that ends a request head, and counts a request.
    ReadHead,
    /// Reads this many bytes.
    Read(usize),
    /// Reads HTTP/2 frames, behind the connection preface, up to the end of a stream.
    ReadHttp2Stream,
    /// Sends these bytes.
    Send(Bytes),
    /// Pauses.
    Pause(Duration),
    /// Closes the sending half and reads on until the peer closes.
    Finish,
    /// Reads until the peer closes, without answering.
    Hold,
    /// Closes with a TCP reset.
    Reset,
    /// Goes back to the first step.
    Repeat,
}

impl Script {
    /// These steps.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self(steps.into_iter().collect())
    }

    /// Reads a request head, answers with these bytes and closes.
    pub fn answer(bytes: impl Into<Bytes>) -> Self {
        Self::new([Step::ReadHead, Step::Send(bytes.into()), Step::Finish])
    }
}

/// Runs the script on one connection; an I/O error ends it.
pub(super) async fn run(mut io: Io, script: &Script, seen: &Seen) {
    // What the peer does to the connection is the test's to judge.
    let _ = steps(&mut io, script, seen).await;
}

async fn steps(io: &mut Io, script: &Script, seen: &Seen) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let mut next = 0;
    while let Some(step) = script.0.get(next) {
        next += 1;
        match step {
            Step::ReadHead => read_head(io, &mut buffer, seen).await?,
            Step::Read(bytes) => {
                while buffer.len() < *bytes {
                    fill(io, &mut buffer).await?;
                }
                buffer.drain(..*bytes);
            }
            Step::ReadHttp2Stream => while !takes_last_frame(io, &mut buffer).await? {},
            Step::Send(bytes) => {
                io.write_all(bytes).await?;
                io.flush().await?;
            }
            Step::Pause(pause) => tokio::time::sleep(*pause).await,
            Step::Finish => {
                io.shutdown().await?;
                tokio::io::copy(io, &mut tokio::io::sink()).await?;
            }
            Step::Hold => {
                tokio::io::copy(io, &mut tokio::io::sink()).await?;
            }
            Step::Reset => {
                let socket = match io {
                    Either::Left(socket) => &*socket,
                    Either::Right(tls) => tls.get_ref().0,
                };
                return socket.set_zero_linger();
            }
            Step::Repeat => next = 0,
        }
    }
    Ok(())
}

async fn read_head(io: &mut Io, buffer: &mut Vec<u8>, seen: &Seen) -> std::io::Result<()> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            let line = String::from_utf8_lossy(&head);
            let mut words = line.split(' ');
            let method = words.next().unwrap_or_default();
            seen.request(method, words.next().unwrap_or_default());
            return Ok(());
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        fill(io, buffer).await?;
    }
}

/// Takes one frame; true when it ends its stream (DATA or HEADERS with END_STREAM).
async fn takes_last_frame(io: &mut Io, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    while buffer.len() < 9 {
        fill(io, buffer).await?;
    }
    let length = u32::from_be_bytes([0, buffer[0], buffer[1], buffer[2]]) as usize;
    let (kind, flags) = (buffer[3], buffer[4]);
    while buffer.len() < 9 + length {
        fill(io, buffer).await?;
    }
    buffer.drain(..9 + length);
    Ok(kind < 2 && flags & 1 != 0)
}

async fn fill(io: &mut Io, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    match io.read_buf(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Sends back what comes.
pub(super) async fn echo(io: Io) {
    let (mut reader, mut writer) = tokio::io::split(io);
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

/// Reads and never answers.
pub(super) async fn swallow(mut io: Io) {
    let _ = tokio::io::copy(&mut io, &mut tokio::io::sink()).await;
}
