//! gRPC calls of plugins as the guest sees them; who carries them is scripted here.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use dataplane_wasm::callout::{
    Calling, Callout, GrpcCall, GrpcEnd, GrpcMessage, GrpcPart, GrpcRunning, HttpCall,
};
use dataplane_wasm::settings::Network;
use dataplane_wasm::{Direction, Instances, LocalResponse, Verdict};
use tokio::sync::mpsc;

use crate::support::{Bench, request, run};

/// Gives each message back, with a head and trailers around them, and ends with that status.
#[derive(Default)]
pub(crate) struct Echo {
    status: u32,
    calls: RefCell<Vec<GrpcCall>>,
}

impl Callout for Echo {
    fn knows(&self, cluster: &str) -> bool {
        cluster == "shop/a:80"
    }

    fn call(&self, _: HttpCall) -> Calling {
        panic!("no plugin of these tests makes such a call");
    }

    fn grpc(
        &self,
        call: GrpcCall,
        mut messages: mpsc::Receiver<GrpcMessage>,
        parts: mpsc::Sender<GrpcPart>,
    ) -> GrpcRunning {
        self.calls.borrow_mut().push(call);
        let end = GrpcEnd {
            status: self.status,
            message: "told".to_owned(),
        };
        Box::pin(async move {
            let fields = vec![(b"x-a".to_vec(), b"1".to_vec())];
            // A guest that has seen enough is gone by now.
            let _ = parts.send(GrpcPart::Head(fields.clone())).await;
            while let Some(message) = messages.recv().await {
                let bytes = message.bytes().clone();
                let _ = parts.send(GrpcPart::Message(bytes)).await;
            }
            let _ = parts.send(GrpcPart::Trailers(fields)).await;
            end
        })
    }
}

/// The imports of gRPC, names and a log at 2000 of which the guest answers what it was told: a letter for
/// each callback, and the message.
const BEGIN: &str = r#"
    (import "env" "proxy_grpc_call" (func $unary (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_grpc_stream" (func $stream (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_grpc_send" (func $send (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_grpc_close" (func $close (param i32) (result i32)))
    (import "env" "proxy_grpc_cancel" (func $cancel (param i32) (result i32)))
    (import "env" "proxy_get_status" (func $status (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_size" (func $size (param i32 i32) (result i32)))
    (data (i32.const 0) "shop/a:80" "pkg.Svc" "Get" "hello")
    (global $at (mut i32) (i32.const 2000))
    (func $letter (param i32)
      (i32.store8 (global.get $at) (local.get 0))
      (global.set $at (i32.add (global.get $at) (i32.const 1))))
    (func $answer
      (drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0)
        (i32.const 2000) (i32.sub (global.get $at) (i32.const 2000)) (i32.const 0) (i32.const 0) (i32.const -1))))
    (func $message (param $size i32)
      (drop (call $get_buffer (i32.const 5) (i32.const 0) (local.get $size) (i32.const 104) (i32.const 108)))
      (memory.copy (global.get $at) (i32.load (i32.const 104)) (i32.load (i32.const 108)))
      (global.set $at (i32.add (global.get $at) (i32.load (i32.const 108)))))
    (func (export "proxy_on_grpc_receive_initial_metadata") (param i32 i32 i32)
      (if (call $size (i32.const 4) (i32.const 104)) (then unreachable))
      (call $letter (i32.add (i32.const 0x30) (local.get 2))))
    (func (export "proxy_on_grpc_receive_trailing_metadata") (param i32 i32 i32)
      (if (call $size (i32.const 5) (i32.const 104)) (then unreachable))
      (call $letter (i32.const 0x54)))
"#;

fn bench(functions: &str, network: Network, status: u32) -> (Bench, Rc<Echo>) {
    let text = format!("{BEGIN}{functions}");
    let mut bench = Bench::with(&text, |settings| settings.network = network);
    let echo = Rc::new(Echo {
        status,
        ..Echo::default()
    });
    bench.instances = Instances::new(echo.clone());
    (bench, echo)
}

fn shop() -> Network {
    Network::Clusters {
        keys: ["shop/a:80".into()].into(),
        prefixes: Vec::new(),
    }
}

fn answer(bench: &Bench) -> LocalResponse {
    run(async {
        let stream = bench.stream();
        let mut head = request(&[]);
        match stream.head(Direction::Request, &mut head, true).await {
            Ok(Verdict::Respond(local)) => local,
            said => panic!("{said:?}"),
        }
    })
}

/// One message out, one back; a failure is told by its status.
const UNARY: &str = r#"
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (if (call $unary (i32.const 0) (i32.const 9) (i32.const 9) (i32.const 7) (i32.const 16) (i32.const 3)
            (i32.const 0) (i32.const 0) (i32.const 19) (i32.const 5) (i32.const 1000) (i32.const 100))
        (then (call $letter (i32.const 0x58)) (call $answer)))
      (i32.const 1))
    (func (export "proxy_on_grpc_receive") (param i32 i32 i32)
      (call $message (local.get 2)) (call $answer))
    (func (export "proxy_on_grpc_close") (param i32 i32 i32)
      (call $letter (i32.add (i32.const 0x41) (local.get 2)))
      (drop (call $status (i32.const 100) (i32.const 104) (i32.const 108)))
      (memory.copy (global.get $at) (i32.load (i32.const 104)) (i32.load (i32.const 108)))
      (global.set $at (i32.add (global.get $at) (i32.load (i32.const 108))))
      (call $answer))
"#;

#[test]
fn a_unary_call_brings_its_message_or_its_status() {
    for (network, status, expected) in [
        (shop(), 0, "hello"),
        (shop(), 5, "Ftold"),
        (Network::Denied, 0, "X"),
    ] {
        let (bench, echo) = bench(UNARY, network, status);
        assert_eq!(answer(&bench).body, expected);
        let calls = echo.calls.borrow();
        for call in &*calls {
            assert_eq!(call.cluster, "shop/a:80");
            assert_eq!(call.path, "/pkg.Svc/Get");
            assert_eq!(call.timeout.unwrap().as_millis(), 1000);
        }
        assert_eq!(calls.is_empty(), expected == "X");
    }
}

#[test]
fn a_stream_is_told_of_every_part_in_its_order() {
    let functions = r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (if (call $stream (i32.const 0) (i32.const 9) (i32.const 9) (i32.const 7) (i32.const 16) (i32.const 3)
                (i32.const 0) (i32.const 0) (i32.const 100)) (then unreachable))
          (drop (call $send (i32.load (i32.const 100)) (i32.const 19) (i32.const 5) (i32.const 0)))
          (drop (call $send (i32.load (i32.const 100)) (i32.const 16) (i32.const 3) (i32.const 0)))
          (if (call $close (i32.load (i32.const 100))) (then unreachable))
          (if (i32.eqz (call $send (i32.load (i32.const 100)) (i32.const 0) (i32.const 1) (i32.const 0)))
            (then unreachable))
          (i32.const 1))
        (func (export "proxy_on_grpc_receive") (param i32 i32 i32) (call $message (local.get 2)))
        (func (export "proxy_on_grpc_close") (param i32 i32 i32)
          (call $letter (i32.add (i32.const 0x61) (local.get 2))) (call $answer))
    "#;
    for (status, expected) in [(0, "1helloGetTa"), (7, "1helloGetTh")] {
        let (bench, _) = bench(functions, shop(), status);
        assert_eq!(answer(&bench).body, Bytes::from(expected));
    }
}

#[test]
fn a_call_that_is_cancelled_or_whose_request_is_over_brings_nothing() {
    let cancels = r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (if (call $stream (i32.const 0) (i32.const 9) (i32.const 9) (i32.const 7) (i32.const 16) (i32.const 3)
                (i32.const 0) (i32.const 0) (i32.const 100)) (then unreachable))
          (if (call $cancel (i32.load (i32.const 100))) (then unreachable))
          (if (i32.eqz (call $cancel (i32.load (i32.const 100)))) (then unreachable))
          (i32.const 0))
        (func (export "proxy_on_grpc_close") (param i32 i32 i32) unreachable)
    "#;
    let leaves = cancels.replace("(call $cancel (i32.load (i32.const 100)))", "(i32.const 0)");
    let leaves = leaves.replace("(if (i32.eqz (i32.const 0)) (then unreachable))", "");
    for functions in [cancels, &leaves] {
        let (bench, _) = bench(functions, shop(), 0);
        run(async {
            for _ in 0..100 {
                let stream = bench.stream();
                let mut head = request(&[]);
                let said = stream.head(Direction::Request, &mut head, true).await;
                assert!(matches!(said, Ok(Verdict::Continue)));
                drop(stream);
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(bench.plugin.condition().failures, 0);
    }
}

#[test]
fn messages_that_wait_are_bounded() {
    let floods = r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (if (call $stream (i32.const 0) (i32.const 9) (i32.const 9) (i32.const 7) (i32.const 16) (i32.const 3)
                (i32.const 0) (i32.const 0) (i32.const 100)) (then unreachable))
          (loop $more
            (call $letter (i32.const 0x2e))
            (br_if $more (i32.eqz (call $send (i32.load (i32.const 100)) (i32.const 0) (i32.const 100000) (i32.const 0)))))
          (call $answer) (i32.const 1))
    "#;
    let (bench, _) = bench(floods, shop(), 0);
    // 4 MiB hold 41 of them; the last one was refused.
    assert_eq!(answer(&bench).body.len(), 42);
}
