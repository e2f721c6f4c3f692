//! Tests of what is noted of a response while it goes out.

use h2::Reason as Code;
use http::HeaderValue;
use tokio::time::Instant as Now;

use dataplane_config::RuntimeConfig;

use crate::arrival::Arrival;
use crate::h1::BodyLength;
use crate::settings::Settings;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    BeforeTrailers,
    BeforeHead,
    Never,
}

/// What is noted of a call whose client leaves then, and whether it was told of.
async fn ended(leaves: Leaves) -> (Option<u16>, bool) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let both = tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
    let ((client, to_gateway), mut gateway) = (both.0.unwrap(), both.1.unwrap());
    let driven = tokio::spawn(to_gateway);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post("http://a.test/s.S/M").body(()).unwrap();
    let (_answer, mut sending) = client.send_request(request, false).unwrap();
    let (_request, respond) = gateway.accept().await.unwrap().unwrap();
    // Has the frames of the client read.
    let mut look = async |leave: bool| {
        if leave {
            sending.send_reset(Code::CANCEL);
        }
        let mut turns = 0;
        while turns < 64 {
            turns += 1;
            tokio::task::yield_now().await;
            let taken = poll_fn(|cx| Poll::Ready(gateway.poll_accept(cx))).await;
            assert!(taken.is_pending());
        }
    };

    let arrival = Arrival::plain();
    let config = RuntimeConfig::default();
    let mut ctx = Context::new(&config, &arrival);
    ctx.grpc = Some(GrpcForm::Native);
    let mut responder = Responder::http2(respond);
    let watch = Watch::new(&Settings::default(), Now::now(), None, false);
    let fields = || HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(0))]);
    let mut response = Response {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: BodyLength::Chunked,
        declared: BodyLength::Chunked,
    };
    look(leaves == Leaves::BeforeHead).await;
    let begun = responder.head(&mut response);
    let told = match begun {
        Ok(()) => {
            look(leaves == Leaves::BeforeTrailers).await;
            passed_on(&mut ctx, Frame::Trailers(fields()), &mut responder, &watch).is_ok()
        }
        Err(_) => false,
    };
    driven.abort();
    (ctx.grpc_status.map(|status| status.code()), told)
}

#[tokio::test]
async fn a_code_is_noted_of_clients_that_were_told_it() {
    for (leaves, expected) in [
        (Leaves::Never, (Some(0), true)),
        (Leaves::BeforeTrailers, (None, false)),
        (Leaves::BeforeHead, (None, false)),
    ] {
        assert_eq!(ended(leaves).await, expected, "{leaves:?}");
    }
}
