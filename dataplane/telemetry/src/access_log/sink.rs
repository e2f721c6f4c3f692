//! Where access log lines go, and the thread that puts them there.
//!
//! The thread owns the file: it alone waits for a slow disk or a pipe nobody reads. A sink that
//! fails loses the lines at hand, is counted, and is opened again after a pause; requests notice
//! nothing of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::metrics::AccessLogMetrics;
use crate::otlp::Collector;
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
    /// A collector of OpenTelemetry.
    Otlp(Collector),
}

/// When a file is put aside, and how many of those are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// A file of this size is put aside; 0 for never.
    pub file_bytes_max: u64,
    /// Files put aside that are kept, as `access.log.1` and so on; the oldest goes first.
    pub files_max: u32,
}

/// The body of the writer thread.
pub(super) fn run(sink: Sink, rotation: Rotation, queue: &Queue, counts: &AccessLogMetrics) {
    // Whatever ends this thread, nobody waits for it afterwards.
    let _finish = FinishOnDrop { queue, counts };
    let mut output = Output::new(sink, rotation);
    // A path that cannot be opened is told at start, not at the first request.
    if let Err(error) = output.open() {
        output.failed(&error, counts);
    }
    loop {
        match queue.next() {
            Work::Stop => return,
            Work::Reopen => output.close(),
            Work::Write(chunk) => {
                let began = Instant::now();
                output.write(&chunk, counts);
                counts.flushed(began.elapsed());
            }
        }
        counts.waits(queue.waiting());
    }
}

/// Says at the end that there is nobody who writes.
pub(super) struct FinishOnDrop<'a> {
    pub(super) queue: &'a Queue,
    pub(super) counts: &'a AccessLogMetrics,
}

impl Drop for FinishOnDrop<'_> {
    fn drop(&mut self) {
        self.counts.dropped_lines.add(self.queue.finish());
        self.counts.waits((0, 0));
        self.counts.writers.set(0);
    }
}

struct Output {
    sink: Sink,
    rotation: Rotation,
    file: Option<File>,
    /// Size of the file, where it is one that can be put aside.
    size: Option<u64>,
    /// When the file may be tried again after it could not be opened.
    retry_at: Option<Instant>,
    /// The last write stopped inside a line.
    is_torn: bool,
    /// Whether the last thing told about the sink was a fault; so each change is told once.
    is_faulty: bool,
}

impl Output {
    fn new(sink: Sink, rotation: Rotation) -> Self {
        Self {
            sink,
            rotation,
            file: None,
            size: None,
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
                self.rotate(counts);
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
            Some(file) => {
                let written = file.write(bytes)?;
                self.size = self.size.map(|size| size + written as u64);
                written
            }
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
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            let facts = file.metadata()?;
            self.size = facts.is_file().then_some(facts.len());
            self.file = Some(file);
            self.retry_at = None;
        }
        Ok(())
    }

    /// Puts a file aside that has become too large. Where that fails it grows on, and is tried again
    /// when it has grown by as much once more.
    fn rotate(&mut self, counts: &AccessLogMetrics) {
        let (Sink::File(path), Some(size)) = (&self.sink, self.size) else {
            return;
        };
        let Rotation {
            file_bytes_max,
            files_max,
        } = self.rotation;
        if file_bytes_max == 0 || size < file_bytes_max {
            return;
        }
        match put_aside(path, files_max) {
            Ok(()) => self.close(),
            Err(error) => {
                self.size = Some(0);
                counts.sink_errors.increment();
                warn!(sink = %self.name(), %error, "the access log cannot be put aside");
            }
        }
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
            Sink::Stdout | Sink::Otlp(_) => "stdout".to_owned(),
        }
    }
}

/// Makes room for a new file at `path`: each one put aside moves one place on.
fn put_aside(path: &Path, files_max: u32) -> io::Result<()> {
    if files_max == 0 {
        return fs::remove_file(path);
    }
    let place = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..files_max).rev() {
        match fs::rename(place(number), place(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, place(1))
}
