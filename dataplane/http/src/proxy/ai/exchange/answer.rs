//! What a provider answered, on its way to the client: whole, or each piece when it comes.
//!
//! Called by the attempt in `exchange` once the head of the answer is there. Converting and counting is
//! `dataplane-ai`'s and the tally's; here is what leaves, and when.

use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use dataplane_ai::call::{Answer, Answering, Call, EVENT_STREAM};
use dataplane_ai::failure::{Failure, FailureReason};
use dataplane_ai::service::Service;
use dataplane_wasm::Direction;

use crate::context::Context;
use crate::deadline::{Wait, Watch};
use crate::downstream::{ClientError, Responder};
use crate::exchange::Receiver;
use crate::h1::{BodyLength, Frame};
use crate::message::Response;
use crate::phase;
use crate::plugins::BodyLine;
use crate::reply::Reply;

use super::super::super::attempt::{Fault, begin_response, poll_now, taken, unless_gone};
use super::super::Line;
use super::super::prepare::Asked;
use super::super::tally::{self, Tally};
use super::{Again, Asking, Ended, Failed};

/// Pieces of a whole answer that are handed over at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Questions up to this size are counted by their tokens when nobody else does; of larger ones the
/// count is taken to be a quarter of their bytes.
const COUNTED_BYTES_MAX: usize = 16 * 1024;

impl<'c> Asking<'_, '_, 'c> {
    /// A whole answer: to the client, unless it is one that another attempt may better.
    #[expect(
        clippy::too_many_arguments,
        reason = "the answer, and what becomes of it"
    )]
    pub(super) async fn answer(
        &self,
        answering: &Answering,
        left_behind: &[String],
        response: Response,
        body: Bytes,
        ctx: &mut Context<'c>,
        asked: &mut Asked,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<Option<Ended>, Ended> {
        let Line { worker, .. } = *self.line;
        let Response {
            status, headers, ..
        } = response;
        let body = match status.is_success() {
            true => self.target.without_key(body),
            false => self.target.error_without_key(body),
        };
        let mut answer = answering.whole(status, &headers, body);
        if answer.failure.is_none() {
            if !answer.usage.is_complete() {
                self.estimate(asked, &mut answer, tally);
            }
            self.redact(asked, &mut answer, tally);
        }
        let is_in_pieces = answering.in_pieces(&mut answer);
        let mut fields = match answering.is_converted() {
            true => HeaderMap::new(),
            false => phase::ai::fields_to_pass(&headers),
        };
        answering.head(&headers, &mut fields);
        self.target.clean_head(&mut fields);
        let kind = match is_in_pieces {
            true => Some(EVENT_STREAM),
            false => answering.content_type(false),
        };
        let kind = kind.or_else(|| fields.get(header::CONTENT_TYPE).cloned());
        let json = || HeaderValue::from_static("application/json");
        let is_ours = answer.failure.is_some();
        let kind = kind.filter(|_| !is_ours).unwrap_or_else(json);
        fields.insert(header::CONTENT_TYPE, kind);
        let most = self.line.worker.settings.ai_ignored_members;
        phase::ai::stamp_ignored(left_behind, most, &mut fields);
        if let Some(failure) = answer.failure.take() {
            tally.failed(failure.reason.as_str());
            let again = match failure.reason {
                FailureReason::Credentials => Again::Elsewhere,
                _ if Service::is_retryable(failure.status) => Again::Here,
                _ => Again::Never,
            };
            let reply = Reply {
                reason: phase::ai::reason_of(&failure),
                status: answer.status,
                headers: fields,
                body: answer.body,
            };
            return Ok(Some(Ended::Failed(Box::new(Failed {
                reply: Box::new(reply),
                again,
                pause: failure.retry_after,
            }))));
        }
        tally.answered(&answer);
        asked.call = None;
        tally.stamp(&mut fields);
        let length = answer.body.len() as u64;
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let mut response = Response {
            status: answer.status,
            headers: fields,
            body: BodyLength::Length(length),
            declared: BodyLength::Length(length),
        };
        let watch = self.line.waiting.watch;
        watch.upstream_done();
        let mut body = answer.body;
        if ctx.plugins.is_some() {
            let (request, head) = (self.request, &mut response);
            let showing = phase::plugin::on_whole_response(ctx, request, head, &mut body);
            // Boxed, because most calls meet no plugin.
            Box::pin(showing).await?;
        }
        begin_response(worker, watch.now(), ctx, &mut response, responder)?;
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(PIECE_BYTES));
            put(Frame::Data(piece), responder, watch).await?;
        }
        put(Frame::End, responder, watch).await?;
        Ok(None)
    }

    /// Takes out of an answer what clients must not see, and puts back what was theirs.
    fn redact(&self, asked: &mut Asked, answer: &mut Answer, tally: &mut Tally<'_>) {
        if let (Some(redactor), Some(vault)) = (&self.line.service.redactor, &mut asked.vault) {
            let redacted = redactor.answer(&answer.body, vault);
            tally.redacted(&redacted.counts);
            answer.body = redacted.body;
        }
    }

    /// Counts what the provider did not.
    fn estimate(&self, asked: &Asked, answer: &mut Answer, tally: &mut Tally<'_>) {
        let Some(call) = &asked.call else { return };
        tally.estimates(estimated(call));
        if answer.usage.output.is_none() {
            answer.usage.output = call.estimated_output(&answer.body);
        }
    }

    /// The head of an answer in pieces goes out; there will be no other attempt.
    #[expect(
        clippy::too_many_arguments,
        reason = "the answer, and what becomes of it"
    )]
    pub(super) async fn begin(
        &self,
        answering: &Answering,
        left_behind: &[String],
        response: &mut Response,
        ctx: &mut Context<'c>,
        asked: &mut Asked,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<(), Ended> {
        let provider = std::mem::take(&mut response.headers);
        let mut fields = match answering.is_converted() {
            true => HeaderMap::new(),
            false => phase::ai::fields_to_pass(&provider),
        };
        answering.head(&provider, &mut fields);
        self.target.clean_head(&mut fields);
        if let Some(kind) = answering.content_type(true) {
            fields.insert(header::CONTENT_TYPE, kind);
        }
        let no_cache = HeaderValue::from_static("no-cache");
        fields.entry(header::CACHE_CONTROL).or_insert(no_cache);
        let most = self.line.worker.settings.ai_ignored_members;
        phase::ai::stamp_ignored(left_behind, most, &mut fields);
        tally.stamp(&mut fields);
        // Not held while the answer streams, which may take long.
        if let Some(call) = asked.call.take() {
            tally.estimates(estimated(&call));
        }
        if let Some(pass) = asked.of_route.take() {
            pass.succeeded();
        }
        let vault = asked.vault.take().unwrap_or_default();
        let redactor = self.line.service.redactor.as_ref();
        let event_bytes_max = self.line.worker.settings.ai_event_bytes_max;
        tally.streams(
            answering.stream(event_bytes_max),
            redactor.map(|redactor| redactor.stream(vault)),
        );
        let mut head = Response {
            status: response.status,
            headers: fields,
            body: BodyLength::Chunked,
            declared: BodyLength::Chunked,
        };
        let Line {
            worker, waiting, ..
        } = *self.line;
        if ctx.plugins.is_some() {
            // Plugins have their own limits.
            waiting.watch.upstream_done();
            let showing = phase::plugin::on_response(ctx, self.request, &mut head);
            Box::pin(showing).await?;
        }
        begin_response(worker, waiting.watch.now(), ctx, &mut head, responder)?;
        Ok(())
    }

    /// The pieces of an answer, each when it comes.
    pub(super) async fn stream(
        &self,
        receiver: &mut Receiver<'_>,
        ctx: &mut Context<'c>,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<(), Ended> {
        let watch = self.line.waiting.watch;
        let mut out = Vec::new();
        let plugins = ctx.plugins.as_deref();
        let mut line = plugins.and_then(|plugins| plugins.body(Direction::Response));
        loop {
            watch.await_upstream(Wait::ResponseBody);
            let frame = match poll_now(|cx| receiver.poll_frame(cx)).await {
                Poll::Ready(frame) => frame.map_err(Fault::from),
                Poll::Pending => {
                    // What was gathered must not wait for a provider that is slow.
                    taken(responder, watch, Responder::poll_flush).await?;
                    watch.await_upstream(Wait::ResponseBody);
                    unless_gone(responder, |cx| receiver.poll_frame(cx)).await
                }
            };
            match frame {
                Ok(Frame::Data(piece)) => tally.push(piece, watch.now(), &mut out),
                Ok(Frame::Trailers(_)) => {}
                Ok(Frame::End) => tally.end(&mut out),
                Err(Fault::Client(error)) => return Err(error.into()),
                Err(_) => tally.abort(Failure::broken_stream(), &mut out),
            }
            let is_over = tally.is_over();
            if is_over {
                tally.end(&mut out);
            }
            for piece in out.drain(..) {
                pass(Frame::Data(piece), &mut line, responder, watch).await?;
            }
            out.shrink_to(tally::PIECES_KEPT);
            if is_over {
                if let Some(failure) = tally.stream_failure() {
                    ctx.reason = phase::ai::reason_of(failure);
                }
                watch.upstream_done();
                return Ok(pass(Frame::End, &mut line, responder, watch).await?);
            }
        }
    }
}

/// About how many tokens a question is, at a price that any call can pay.
fn estimated(call: &Call) -> u64 {
    let bytes = call.body().len();
    match bytes <= COUNTED_BYTES_MAX {
        true => call.estimated_input(call.model()),
        false => bytes as u64 / 4,
    }
}

/// A frame to the client, through the plugins if there are any.
async fn pass(
    frame: Frame,
    line: &mut Option<Box<BodyLine>>,
    responder: &mut Responder<'_>,
    watch: &Watch,
) -> Result<(), ClientError> {
    let Some(line) = line else {
        return put(frame, responder, watch).await;
    };
    for frame in Box::pin(line.pass(frame)).await? {
        put(frame, responder, watch).await?;
    }
    Ok(())
}

async fn put(
    frame: Frame,
    responder: &mut Responder<'_>,
    watch: &Watch,
) -> Result<(), ClientError> {
    responder.put(frame)?;
    taken(responder, watch, Responder::poll_taken).await
}
