//! The body of a request, frame by frame, with as much memory of it as someone asked for.
//!
//! Usually a frame is handed on and forgotten. [`RequestBody::keep`] remembers what was handed on, so
//! that it can be sent a second time; [`RequestBody::read_ahead`] reads a beginning that is looked at
//! before it is sent. Both are bounded, and a body that outgrows what is kept goes on as if nothing
//! had been: it only cannot be sent again. Whether it is sent again is decided in `phase::retry`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;

use super::{ClientError, body_room, end_of_http2};
use crate::h1::{self, BodyDecoder, BodyLength, Frame};
use crate::io::Duplex;
use crate::pipe::Writer;
use crate::plugins::BodyLine;
use crate::settings::Settings;

/// Room for the first bytes that are kept; most bodies are small.
const KEPT_BYTES: usize = 1024;

/// The body of a request, frame by frame.
pub(crate) struct RequestBody<'a> {
    source: Source<'a>,
    bytes: u64,
    bytes_max: Option<u64>,
    started: bool,
    done: bool,
    /// What is remembered; nothing is unless someone asked for it.
    memory: Option<Box<Memory>>,
    /// The plugins that it goes through; mostly none.
    plugins: Option<Box<BodyLine>>,
    /// Who gets a copy of what comes.
    copies: Option<Box<[Writer]>>,
    /// The readers of the copies had a turn before the frame that is read now.
    has_yielded: bool,
}

enum Source<'a> {
    Http1 {
        io: &'a Duplex,
        buf: &'a mut BytesMut,
        decoder: BodyDecoder,
        /// What is held at once.
        buffer_bytes: usize,
    },
    Http2(RecvStream),
}

/// Frames that were read and may be handed out (again).
///
/// Bytes are copied into one piece: a frame of one byte may keep a whole read buffer alive, and a
/// client chooses how many of those there are.
#[derive(Debug, Default)]
struct Memory {
    /// Handed out, to be handed out again after a rewind. Never holds [`Frame::End`].
    given: Vec<Frame>,
    /// Data handed out since, not yet in `given`.
    given_data: BytesMut,
    /// Bytes in `given` and `given_data`.
    given_bytes: usize,
    /// Still to be handed out.
    ahead: VecDeque<Frame>,
    /// Data read since, not yet in `ahead`.
    ahead_data: BytesMut,
    /// How much may be given and kept; with 0 nothing that was handed out is.
    keep_max: usize,
}

/// A beginning of a body; see [`RequestBody::read_ahead`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// True when the body has no more of them.
    pub(crate) is_whole: bool,
}

impl<'a> RequestBody<'a> {
    pub(crate) fn http1(
        io: &'a Duplex,
        buf: &'a mut BytesMut,
        length: BodyLength,
        settings: &Settings,
    ) -> Self {
        let source = Source::Http1 {
            io,
            buf,
            decoder: BodyDecoder::new(length, &settings.request_head),
            buffer_bytes: settings.buffer_bytes,
        };
        Self::new(source, length.is_empty())
    }

    pub(crate) fn http2(stream: RecvStream) -> Self {
        let done = stream.is_end_stream();
        Self::new(Source::Http2(stream), done)
    }

    fn new(source: Source<'a>, done: bool) -> Self {
        Self {
            source,
            bytes: 0,
            bytes_max: None,
            started: false,
            done,
            memory: None,
            plugins: None,
            copies: None,
            has_yielded: false,
        }
    }

    /// Has the whole body written to these, too; to be asked before anything was handed out.
    pub(crate) fn copy_to(&mut self, writers: Vec<Writer>) {
        debug_assert!(!self.started, "what was handed out cannot be copied");
        if writers.is_empty() {
            return;
        }
        if let Some(memory) = &mut self.memory {
            memory.ahead.extend(gather(&mut memory.ahead_data));
            for frame in &memory.ahead {
                writers.iter().for_each(|writer| writer.write(frame));
            }
        }
        if self.done {
            writers.iter().for_each(|writer| writer.write(&Frame::End));
        } else {
            self.copies = Some(writers.into());
        }
    }

    /// Has the whole body go through plugins; to be asked before anything was handed out.
    pub(crate) fn go_through(&mut self, mut plugins: Box<BodyLine>) {
        debug_assert!(!self.started, "what was handed out cannot be shown");
        let mut ahead = VecDeque::new();
        if let Some(memory) = &mut self.memory {
            memory.ahead.extend(gather(&mut memory.ahead_data));
            ahead = std::mem::take(&mut memory.ahead);
        }
        if std::mem::take(&mut self.done) {
            ahead.push_back(Frame::End);
        }
        plugins.begin_with(ahead.into_iter());
        self.plugins = Some(plugins);
    }

    pub(crate) fn limit(&mut self, bytes_max: Option<u64>) {
        self.bytes_max = bytes_max;
    }

    /// True when nothing more will come from the client.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// True when a part of it was handed out and is not kept, so that it cannot be sent again.
    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    /// Body bytes that came from the client so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps what is handed out from now on, up to `bytes_max` bytes, for [`Self::rewind`].
    ///
    /// Larger bodies are handed out as ever and can then not be rewound.
    pub(crate) fn keep(&mut self, bytes_max: usize) {
        if self.started || bytes_max == 0 || (self.done && self.memory.is_none()) {
            return;
        }
        self.memory.get_or_insert_default().keep_max = bytes_max;
    }

    /// Starts over with the first byte. To be asked only while [`Self::is_started`] is false.
    pub(crate) fn rewind(&mut self) {
        debug_assert!(
            !self.started,
            "what was not kept cannot be handed out again"
        );
        if let Some(memory) = &mut self.memory {
            memory.rewind();
        }
    }

    /// Keeps nothing from now on, because there will be no other attempt.
    pub(crate) fn forget(&mut self) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        self.started |= memory.is_given();
        memory.forget();
        if memory.ahead_bytes() == 0 && memory.ahead.is_empty() {
            self.memory = None;
        }
    }

    /// Reads the first `bytes_max` bytes, or the whole body when it is shorter, without taking them:
    /// they are handed out by [`Self::frame`] later.
    ///
    /// A client that waits for 100 (Continue) must have been given it. Time is the caller's, who is
    /// told of each step.
    pub(crate) async fn read_ahead(
        &mut self,
        bytes_max: usize,
        mut on_progress: impl FnMut(),
    ) -> Result<Prefix, ClientError> {
        loop {
            let known = self
                .memory
                .as_ref()
                .map_or(0, |memory| memory.ahead_bytes());
            if self.done || known >= bytes_max {
                break;
            }
            let frame = poll_fn(|cx| self.poll_read(cx)).await?;
            on_progress();
            if !matches!(frame, Frame::End) {
                self.memory.get_or_insert_default().read(frame);
            }
        }
        // What plugins hold back of it is not told by its source.
        let is_drained = self.done || (self.plugins.is_none() && self.source.is_drained());
        let bytes = self
            .memory
            .as_mut()
            .map_or_else(Bytes::new, |memory| memory.beginning());
        Ok(Prefix {
            is_whole: is_drained && bytes.len() <= bytes_max,
            bytes: bytes.slice(..bytes.len().min(bytes_max)),
        })
    }

    /// The next frame; [`Frame::End`] behind the last, again and again.
    pub(crate) async fn frame(&mut self) -> Result<Frame, ClientError> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// As [`Self::frame`], for one poll; nothing is lost when it is not polled to the end.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, ClientError>> {
        if let Some(memory) = &mut self.memory
            && let Some(frame) = memory.next()
        {
            self.started |= !memory.give_again(&frame);
            return Poll::Ready(Ok(frame));
        }
        if self.done {
            return Poll::Ready(Ok(Frame::End));
        }
        let frame = ready!(self.poll_read(cx))?;
        let is_kept = match &mut self.memory {
            Some(memory) => memory.give(&frame),
            None => false,
        };
        if !is_kept {
            self.started = true;
            self.memory = None;
        }
        Poll::Ready(Ok(frame))
    }

    /// The next frame from the client.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, ClientError>> {
        if let Some(copies) = &self.copies
            && !self.has_yielded
            && copies.iter().any(Writer::is_filling)
        {
            // Not to wait for who reads the copy, but to let it run at all; before a frame is taken,
            // which would be lost if an attempt ended meanwhile.
            self.has_yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Self {
            source,
            bytes,
            bytes_max,
            plugins,
            ..
        } = self;
        let mut read = |cx: &mut Context<'_>| source.poll_counted(cx, bytes, *bytes_max);
        let frame = match plugins {
            None => ready!(read(cx))?,
            Some(plugins) => ready!(plugins.poll(cx, read))?,
        };
        self.has_yielded = false;
        if matches!(frame, Frame::End) {
            self.done = true;
        }
        if let Some(copies) = &self.copies {
            copies.iter().for_each(|copy| copy.write(&frame));
        }
        Poll::Ready(Ok(frame))
    }

    /// The raw stream and what was read from it beyond the request, for a switched connection.
    pub(crate) fn raw(&mut self) -> Option<(&Duplex, &mut BytesMut)> {
        match &mut self.source {
            Source::Http1 { io, buf, .. } => Some((io, buf)),
            Source::Http2(_) => None,
        }
    }

    /// Counts bytes that a switched connection carried.
    pub(crate) fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

impl Source<'_> {
    /// The next frame, its bytes counted and within the limit.
    fn poll_counted(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut u64,
        bytes_max: Option<u64>,
    ) -> Poll<Result<Frame, ClientError>> {
        let frame = match self {
            Self::Http1 {
                io,
                buf,
                decoder,
                buffer_bytes,
            } => ready!(poll_http1(io, buf, decoder, *buffer_bytes, cx))?,
            Self::Http2(stream) => ready!(poll_http2(stream, cx))?,
        };
        if let Frame::Data(data) = &frame {
            *bytes += data.len() as u64;
            if bytes_max.is_some_and(|max| *bytes > max) {
                return Poll::Ready(Err(ClientError::TooLarge));
            }
        }
        Poll::Ready(Ok(frame))
    }

    /// True when no byte of the body is missing, whether or not its end was handed out.
    fn is_drained(&self) -> bool {
        match self {
            Self::Http1 { decoder, .. } => decoder.is_done(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }
}

impl Memory {
    /// Notes a frame that is handed out for the first time; false when it is not kept, and nothing
    /// before it is any more.
    fn give(&mut self, frame: &Frame) -> bool {
        match frame {
            Frame::Data(data) => {
                if !self.has_room_for(data) {
                    return false;
                }
                if self.given_data.capacity() == 0 {
                    self.given_data.reserve(data.len().max(KEPT_BYTES));
                }
                self.given_data.extend_from_slice(data);
                true
            }
            Frame::Trailers(_) => self.give_again(frame),
            Frame::End => self.keep_max > 0,
        }
    }

    /// As [`Self::give`], for a frame that is in memory of its own already.
    fn give_again(&mut self, frame: &Frame) -> bool {
        let is_kept = match frame {
            Frame::Data(data) => self.has_room_for(data),
            Frame::Trailers(_) | Frame::End => self.keep_max > 0,
        };
        if is_kept {
            self.given.extend(gather(&mut self.given_data));
            self.given.push(frame.clone());
        }
        is_kept
    }

    fn has_room_for(&mut self, data: &Bytes) -> bool {
        self.given_bytes += data.len();
        let has_room = self.given_bytes <= self.keep_max;
        if !has_room {
            self.forget();
        }
        has_room
    }

    fn is_given(&self) -> bool {
        !self.given.is_empty() || !self.given_data.is_empty()
    }

    /// What is handed out next, of what was read before.
    fn next(&mut self) -> Option<Frame> {
        let next = self.ahead.pop_front();
        next.or_else(|| gather(&mut self.ahead_data))
    }

    /// Notes a frame that was read and not handed out.
    fn read(&mut self, frame: Frame) {
        if let Frame::Data(data) = &frame {
            self.ahead_data.extend_from_slice(data);
            return;
        }
        self.ahead.extend(gather(&mut self.ahead_data));
        self.ahead.push_back(frame);
    }

    /// All data that was not handed out.
    fn beginning(&mut self) -> Bytes {
        self.ahead.extend(gather(&mut self.ahead_data));
        let mut data = self.ahead.iter().filter_map(|frame| match frame {
            Frame::Data(data) => Some(data),
            Frame::Trailers(_) | Frame::End => None,
        });
        match (data.next(), data.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            (Some(first), Some(second)) => {
                let mut all = BytesMut::from(&first[..]);
                all.extend_from_slice(second);
                data.for_each(|data| all.extend_from_slice(data));
                all.freeze()
            }
        }
    }

    fn rewind(&mut self) {
        self.given.extend(gather(&mut self.given_data));
        for frame in self.given.drain(..).rev() {
            self.ahead.push_front(frame);
        }
        self.given_bytes = 0;
    }

    fn forget(&mut self) {
        self.given = Vec::new();
        self.given_data = BytesMut::new();
        self.keep_max = 0;
    }

    fn ahead_bytes(&self) -> usize {
        let length = |frame: &Frame| match frame {
            Frame::Data(data) => data.len(),
            Frame::Trailers(_) | Frame::End => 0,
        };
        self.ahead.iter().map(length).sum::<usize>() + self.ahead_data.len()
    }
}

/// Gathered data as a frame; `None` when there is none.
///
/// Taken and not split off: the room behind it would keep all of it alive for as long as the request.
fn gather(data: &mut BytesMut) -> Option<Frame> {
    (!data.is_empty()).then(|| Frame::Data(std::mem::take(data).freeze()))
}

fn poll_http1(
    io: &Duplex,
    buf: &mut BytesMut,
    decoder: &mut BodyDecoder,
    buffer_bytes: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<Frame, ClientError>> {
    let mut is_eof = false;
    loop {
        match decoder.decode(buf, is_eof) {
            Ok(Some(frame)) => {
                if buf.is_empty() && matches!(frame, Frame::End) {
                    // The response may take long, and the rest of the room is of no use for it.
                    *buf = BytesMut::new();
                }
                return Poll::Ready(Ok(frame));
            }
            Ok(None) => {}
            Err(h1::BodyError::Truncated) => return Poll::Ready(Err(ClientError::Gone)),
            Err(error) => return Poll::Ready(Err(ClientError::Malformed(error.detail()))),
        }
        is_eof = ready!(io.poll_read(cx, buf, body_room(decoder, buffer_bytes)))? == 0;
    }
}

fn poll_http2(stream: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Result<Frame, ClientError>> {
    let frame = match ready!(stream.poll_data(cx)) {
        Some(data) => {
            let data = data?;
            stream.flow_control().release_capacity(data.len())?;
            Frame::Data(data)
        }
        None => end_of_http2(ready!(stream.poll_trailers(cx))?),
    };
    Poll::Ready(Ok(frame))
}

#[cfg(test)]
mod tests;
