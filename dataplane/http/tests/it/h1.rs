//! The HTTP/1.1 codec: every refusal with its exact bytes, every cut of the input, round trips, and the
//! request-smuggling corpus. The helpers here feed input in one piece and byte by byte, and insist that
//! both end the same.

mod request;
mod request_fields;
mod response;
mod body;
mod writing;
mod hop_by_hop;
mod smuggling;
mod property;

use bytes::BytesMut;
use http::Method;

use dataplane_http::h1::{
    BodyDecoder, BodyError, BodyLength, Frame, HeadError, HeadLimits, RequestHead, ResponseHead,
    request_head, response_head,
};

/// A head and what was left behind it, as comparable text.
type Outcome = Result<Option<(String, Vec<u8>)>, HeadError>;

fn outcome<H: std::fmt::Debug>(
    result: Result<Option<H>, HeadError>,
    rest: impl Fn() -> Vec<u8>,
) -> Outcome {
    result.map(|head| head.map(|head| (format!("{head:?}"), rest())))
}

/// Feeds `input` in pieces that end at `cuts`, as a connection would, until a head or an error comes.
fn request_in_pieces(input: &[u8], cuts: &[usize], limits: &HeadLimits) -> Outcome {
    let (mut buf, mut scan, mut from) = (BytesMut::new(), 0, 0);
    for cut in cuts.iter().copied().chain([input.len()]) {
        buf.extend_from_slice(&input[from..cut]);
        from = cut;
        let result = request_head(&mut buf, &mut scan, limits);
        if !matches!(result, Ok(None)) {
            return outcome(result, || [&buf[..], &input[from..]].concat());
        }
    }
    Ok(None)
}

fn response_in_pieces(input: &[u8], cuts: &[usize], method: &Method) -> Outcome {
    let (mut buf, mut scan, mut from) = (BytesMut::new(), 0, 0);
    for cut in cuts.iter().copied().chain([input.len()]) {
        buf.extend_from_slice(&input[from..cut]);
        from = cut;
        let result = response_head(&mut buf, &mut scan, &HeadLimits::RESPONSE, method);
        if !matches!(result, Ok(None)) {
            return outcome(result, || [&buf[..], &input[from..]].concat());
        }
    }
    Ok(None)
}

/// All data joined, whether the end was seen, the trailers as text, and the bytes left over.
type BodyOutcome = Result<(Vec<u8>, Option<String>, bool, Vec<u8>), BodyError>;

fn body_in_pieces(input: &[u8], cuts: &[usize], length: BodyLength, is_eof: bool) -> BodyOutcome {
    let mut decoder = BodyDecoder::new(length, &HeadLimits::REQUEST);
    let (mut buf, mut from) = (BytesMut::new(), 0);
    let (mut data, mut trailers) = (Vec::new(), None);
    for cut in cuts.iter().copied().chain([input.len()]) {
        buf.extend_from_slice(&input[from..cut]);
        from = cut;
        let is_last = cut == input.len();
        while let Some(frame) = decoder.decode(&mut buf, is_eof && is_last)? {
            match frame {
                Frame::Data(bytes) => {
                    assert!(!bytes.is_empty(), "an empty data frame");
                    data.extend_from_slice(&bytes);
                }
                Frame::Trailers(fields) => trailers = Some(format!("{fields:?}")),
                Frame::End => {
                    assert!(decoder.is_done());
                    return Ok((data, trailers, true, [&buf[..], &input[from..]].concat()));
                }
            }
        }
    }
    Ok((data, trailers, false, buf.to_vec()))
}

fn body(input: &[u8], length: BodyLength) -> BodyOutcome {
    let whole = body_in_pieces(input, &[], length, false);
    for cut in 0..=input.len() {
        assert_eq!(
            body_in_pieces(input, &[cut], length, false),
            whole,
            "cut at {cut}"
        );
    }
    let every: Vec<usize> = (0..input.len()).collect();
    assert_eq!(
        body_in_pieces(input, &every, length, false),
        whole,
        "byte by byte"
    );
    whole
}

/// The request head at the front of `input`, after making sure that no cut changes the outcome.
fn request_within(input: &[u8], limits: &HeadLimits) -> Result<Option<RequestHead>, HeadError> {
    let whole = request_in_pieces(input, &[], limits);
    for cut in 0..=input.len().min(2048) {
        assert_eq!(
            request_in_pieces(input, &[cut], limits),
            whole,
            "cut at {cut}"
        );
    }
    let every: Vec<usize> = (0..input.len()).collect();
    assert_eq!(
        request_in_pieces(input, &every, limits),
        whole,
        "byte by byte"
    );
    request_head(&mut BytesMut::from(input), &mut 0, limits)
}

fn request(input: &[u8]) -> Result<Option<RequestHead>, HeadError> {
    request_within(input, &HeadLimits::REQUEST)
}

fn parsed(text: &str) -> RequestHead {
    request(text.as_bytes())
        .expect("a valid head")
        .expect("a whole head")
}

/// A request line that is fine, a Host, and these lines after it.
fn request_with(lines: &str) -> Result<RequestHead, HeadError> {
    let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    request(text.as_bytes()).map(|head| head.expect("a whole head"))
}

fn response_to(input: &[u8], method: &Method) -> Result<Option<ResponseHead>, HeadError> {
    let whole = response_in_pieces(input, &[], method);
    for cut in 0..=input.len() {
        assert_eq!(
            response_in_pieces(input, &[cut], method),
            whole,
            "cut at {cut}"
        );
    }
    let every: Vec<usize> = (0..input.len()).collect();
    assert_eq!(
        response_in_pieces(input, &every, method),
        whole,
        "byte by byte"
    );
    response_head(
        &mut BytesMut::from(input),
        &mut 0,
        &HeadLimits::RESPONSE,
        method,
    )
}
