//! Where access log lines go, and the thread that puts them there.
//!
//! The thread owns the file: it alone waits for a slow disk or a pipe nobody reads. A sink that
//! fails loses the lines at hand, is counted, and is opened again after a pause; requests notice
//! nothing of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::metrics::AccessLogMetrics;
use crate::queue::{Chunk, Queue, Work};

/// How long a file that could not be opened is left alone.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Appended to this file, which is made when it does not exist.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// The body of the writer thread.
pub(super) fn run(sink: Sink, queue: &Queue, counts: &AccessLogMetrics) {
    // Whatever ends this thread, nobody waits for it afterwards.
    let _finish = FinishOnDrop { queue, counts };
    let mut output = Output::new(sink);
    // A path that cannot be opened is told at start, not at the first request.
    if let Err(error) = output.open() {
        output.failed(&error, counts);
    }
    loop {
        match queue.next() {
            Work::Stop => return,
            Work::Reopen => output.close(),
            Work::Write(chunk) => output.write(&chunk, counts),
        }
        counts.queue_bytes.set(queue.bytes());
    }
}

struct FinishOnDrop<'a> {
    queue: &'a Queue,
    counts: &'a AccessLogMetrics,
}

impl Drop for FinishOnDrop<'_> {
    fn drop(&mut self) {
        self.counts.dropped_lines.add(self.queue.finish());
        self.counts.queue_bytes.set(0);
    }
}

struct Output {
    sink: Sink,
    file: Option<File>,
    /// When the file may be tried again after it could not be opened.
    retry_at: Option<Instant>,
    /// The last write stopped inside a line.
    is_torn: bool,
    /// Whether the last thing told about the sink was a fault; so each change is told once.
    is_faulty: bool,
}

impl Output {
    fn new(sink: Sink) -> Self {
        Self {
            sink,
            file: None,
            retry_at: None,
            is_torn: false,
            is_faulty: false,
        }
    }

    fn write(&mut self, chunk: &Chunk, counts: &AccessLogMetrics) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            counts.dropped_lines.add(chunk.lines);
            return;
        }
        match self.try_write(chunk) {
            Ok(()) => {
                counts.lines.add(chunk.lines);
                if self.is_faulty {
                    self.is_faulty = false;
                    info!(sink = %self.name(), "access log is being written again");
                }
            }
            Err(error) => {
                counts.dropped_lines.add(chunk.lines);
                self.failed(&error, counts);
            }
        }
    }

    fn try_write(&mut self, chunk: &Chunk) -> io::Result<()> {
        self.open()?;
        // A torn line is ended first, so that only the torn one is lost to readers.
        if self.is_torn {
            self.write_some(b"\n")?;
            self.is_torn = false;
        }
        let mut left = chunk.bytes.as_slice();
        while !left.is_empty() {
            match self.write_some(left) {
                Ok(written) => {
                    self.is_torn = left.get(written.wrapping_sub(1)) != Some(&b'\n');
                    left = left.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.file {
            Some(file) => file.write(bytes)?,
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()?;
                bytes.len()
            }
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(written)
    }

    fn open(&mut self) -> io::Result<()> {
        if let (Sink::File(path), None) = (&self.sink, &self.file) {
            self.file = Some(OpenOptions::new().append(true).create(true).open(path)?);
            self.retry_at = None;
        }
        Ok(())
    }

    fn close(&mut self) {
        self.file = None;
        self.retry_at = None;
        self.is_torn = false;
    }

    fn failed(&mut self, error: &io::Error, counts: &AccessLogMetrics) {
        counts.sink_errors.increment();
        if matches!(self.sink, Sink::File(_)) && self.file.is_none() {
            self.retry_at = Some(Instant::now() + RETRY_PAUSE);
        }
        if !self.is_faulty {
            self.is_faulty = true;
            warn!(
                sink = %self.name(),
                %error,
                "access log lines are being dropped; check that the path exists, is writable and \
                 has space"
            );
        }
    }

    fn name(&self) -> String {
        match &self.sink {
            Sink::File(path) => path.display().to_string(),
            Sink::Stdout => "stdout".to_owned(),
        }
    }
}
