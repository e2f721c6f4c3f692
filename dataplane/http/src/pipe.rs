//! A copy of a request body on its way to somebody else, within one worker.
//!
//! `downstream` writes what the client sends, `mirror` reads it. The writer never waits: a reader that
//! falls too far behind loses the rest and is told so. Small pieces are copied, because a piece may
//! keep the whole buffer alive that it was read into.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;

use crate::h1::Frame;

/// Pieces up to this size are copied, larger ones shared.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Why a copy has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The body itself broke off.
    Aborted,
    /// The reader was too slow.
    Slow,
}

/// A pipe that holds up to `bytes_max` bytes.
pub(crate) fn pipe(bytes_max: usize) -> (Writer, Reader) {
    let pipe = Rc::new(RefCell::new(Pipe {
        frames: VecDeque::new(),
        bytes: 0,
        bytes_max,
        end: None,
        waker: None,
    }));
    (Writer(Rc::clone(&pipe)), Reader(pipe))
}

#[derive(Debug)]
struct Pipe {
    frames: VecDeque<Frame>,
    bytes: usize,
    bytes_max: usize,
    end: Option<Result<(), Lost>>,
    waker: Option<Waker>,
}

impl Pipe {
    fn end(&mut self, end: Result<(), Lost>) {
        self.end.get_or_insert(end);
        if end.is_err() {
            self.frames = VecDeque::new();
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The end of a pipe that a body is copied into. Dropped before the body's end, it says that the
/// body broke off.
#[derive(Debug)]
pub(crate) struct Writer(Rc<RefCell<Pipe>>);

impl Writer {
    /// Copies a frame; [`Frame::End`] behind the last.
    pub(crate) fn write(&self, frame: &Frame) {
        let mut pipe = self.0.borrow_mut();
        if pipe.end.is_some() || Rc::strong_count(&self.0) == 1 {
            return;
        }
        let frame = match frame {
            Frame::Data(data) => {
                pipe.bytes += data.len();
                if pipe.bytes > pipe.bytes_max {
                    pipe.end(Err(Lost::Slow));
                    return;
                }
                Frame::Data(if data.len() <= COPY_BYTES_MAX {
                    Bytes::copy_from_slice(data)
                } else {
                    data.clone()
                })
            }
            Frame::Trailers(trailers) => Frame::Trailers(trailers.clone()),
            Frame::End => {
                pipe.end(Ok(()));
                return;
            }
        };
        pipe.frames.push_back(frame);
        pipe.wake();
    }

    /// True when the reader should get a turn before more is written.
    pub(crate) fn is_filling(&self) -> bool {
        let pipe = self.0.borrow();
        pipe.end.is_none() && pipe.bytes > pipe.bytes_max / 2 && Rc::strong_count(&self.0) > 1
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        if pipe.end.is_none() {
            pipe.end(Err(Lost::Aborted));
        }
    }
}

/// The end of a pipe that a copy is read from.
#[derive(Debug)]
pub(crate) struct Reader(Rc<RefCell<Pipe>>);

impl Reader {
    /// The next frame; [`Frame::End`] behind the last, again and again.
    pub(crate) async fn frame(&mut self) -> Result<Frame, Lost> {
        poll_fn(|cx| {
            let mut pipe = self.0.borrow_mut();
            if let Some(frame) = pipe.frames.pop_front() {
                if let Frame::Data(data) = &frame {
                    pipe.bytes -= data.len();
                }
                return Poll::Ready(Ok(frame));
            }
            match pipe.end {
                Some(end) => Poll::Ready(end.map(|()| Frame::End)),
                None => {
                    pipe.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn data(bytes: usize) -> Frame {
        Frame::Data(Bytes::from(vec![1; bytes]))
    }

    fn read(reader: &mut Reader) -> Option<Result<usize, Lost>> {
        let frame = reader.frame().now_or_never()?;
        Some(frame.map(|frame| match frame {
            Frame::Data(data) => data.len(),
            Frame::Trailers(_) => usize::MAX,
            Frame::End => 0,
        }))
    }

    #[test]
    fn what_is_written_is_read_to_its_end() {
        let (writer, mut reader) = pipe(100);
        assert_eq!(read(&mut reader), None);
        writer.write(&data(10));
        writer.write(&data(20));
        assert_eq!(read(&mut reader), Some(Ok(10)));
        writer.write(&Frame::Trailers(http::HeaderMap::new()));
        writer.write(&Frame::End);
        drop(writer);
        assert_eq!(read(&mut reader), Some(Ok(20)));
        assert_eq!(read(&mut reader), Some(Ok(usize::MAX)));
        assert_eq!(read(&mut reader), Some(Ok(0)));
        assert_eq!(read(&mut reader), Some(Ok(0)));
    }

    #[test]
    fn a_body_that_breaks_off_has_no_end() {
        let (writer, mut reader) = pipe(100);
        writer.write(&data(10));
        drop(writer);
        assert_eq!(read(&mut reader), Some(Err(Lost::Aborted)));
    }

    #[test]
    fn a_slow_reader_loses_the_rest_and_holds_nothing() {
        let (writer, mut reader) = pipe(100);
        for _ in 0..5 {
            writer.write(&data(20));
        }
        assert!(writer.is_filling());
        assert_eq!(read(&mut reader), Some(Ok(20)));
        writer.write(&data(20));
        writer.write(&data(1));
        assert!(!writer.is_filling(), "nobody need wait for it any more");
        assert!(writer.0.borrow().frames.is_empty());
        writer.write(&data(1));
        writer.write(&Frame::End);
        assert_eq!(read(&mut reader), Some(Err(Lost::Slow)));
    }

    #[test]
    fn without_a_reader_nothing_is_kept() {
        let (writer, reader) = pipe(100);
        drop(reader);
        writer.write(&data(90));
        assert!(writer.0.borrow().frames.is_empty());
        assert!(!writer.is_filling());
    }
}
