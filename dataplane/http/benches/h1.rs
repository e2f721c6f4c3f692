//! What parsing and writing an HTTP/1.1 head costs, beside httparse alone. httparse only finds the
//! parts; ours builds the field map, checks more and frees it all again, so the two are a floor and a
//! figure, not rivals.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::header::HOST;
use http::{Method, StatusCode, Version};

use dataplane_http::h1::{
    BodyDecoder, BodyLength, Connection, Frame, HeadLimits, encode_request_head,
    encode_response_head, request_head, response_head,
};

const REQUEST: &[u8] = b"GET /api/v1/items/42?page=2 HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: origin\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: no-store\r\n\
    ETag: \"0123456789abcdef\"\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("h1");
    // One buffer per connection: after its first head, splitting it allocates nothing.
    let mut buf = BytesMut::with_capacity(16 * 1024);
    group.bench_function("request_head", |bencher| {
        bencher.iter(|| {
            buf.reserve(REQUEST.len());
            buf.extend_from_slice(black_box(REQUEST));
            request_head(&mut buf, &mut 0, &HeadLimits::REQUEST)
        });
    });
    group.bench_function("request_httparse_alone", |bencher| {
        bencher.iter(|| {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut fields);
            request
                .parse(black_box(REQUEST))
                .map(|status| (status, request.headers.len()))
        });
    });
    group.bench_function("response_head", |bencher| {
        bencher.iter(|| {
            buf.reserve(RESPONSE.len());
            buf.extend_from_slice(black_box(RESPONSE));
            response_head(&mut buf, &mut 0, &HeadLimits::RESPONSE, &Method::GET)
        });
    });
    group.bench_function("response_httparse_alone", |bencher| {
        bencher.iter(|| {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut fields);
            response
                .parse(black_box(RESPONSE))
                .map(|status| (status, response.headers.len()))
        });
    });
    group.finish();
}

fn writing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("h1");
    let request = request_head(&mut BytesMut::from(REQUEST), &mut 0, &HeadLimits::REQUEST)
        .expect("a valid head")
        .expect("a whole head");
    let path = request.target.path_and_query().expect("an origin target");
    let host = request.headers[HOST].clone();
    let mut out = BytesMut::with_capacity(4096);
    group.bench_function("encode_request_head", |bencher| {
        bencher.iter(|| {
            out.clear();
            let (headers, body) = (&request.headers, BodyLength::None);
            encode_request_head(&mut out, &request.method, &path, &host, headers, b"", body);
            out.len()
        });
    });
    group.bench_function("encode_response_head", |bencher| {
        let (version, status) = (Version::HTTP_11, StatusCode::OK);
        let (headers, body) = (&request.headers, BodyLength::Length(1024));
        bencher.iter(|| {
            out.clear();
            let connection = Connection::KeepAlive;
            encode_response_head(&mut out, version, status, headers, body, connection);
            out.len()
        });
    });
    group.finish();
}

fn bodies(criterion: &mut Criterion) {
    let mut chunked = b"1000\r\n".to_vec();
    chunked.extend_from_slice(&[b'x'; 4096]);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let chunked = Bytes::from(chunked);
    criterion.bench_function("h1/decode_chunk_4k", |bencher| {
        let fresh = || BytesMut::from(&chunked[..]);
        let decode = |mut buf: BytesMut| {
            let mut decoder = BodyDecoder::new(BodyLength::Chunked, &HeadLimits::REQUEST);
            let mut len = 0;
            while let Ok(Some(Frame::Data(data))) = decoder.decode(&mut buf, false) {
                len += data.len();
            }
            len
        };
        bencher.iter_batched(fresh, decode, BatchSize::SmallInput);
    });
}

criterion_group!(benches, heads, writing, bodies);
criterion_main!(benches);
