//! Tests of the quarantine: who goes in, who comes out, and when.

use ir::http_route::Route;
use ir::{HttpRoute, Resources};

use super::*;

const RETRY: Duration = Duration::from_secs(30);

fn snapshot(routes: &[(&str, &str)]) -> Snapshot {
    let route = |(name, label): &(&str, &str)| HttpRoute {
        key: format!("shop/{name}").into(),
        hostnames: Vec::new(),
        listeners: Vec::new(),
        parent_refs: Vec::new(),
        rules: Vec::new(),
        labels: [("app".to_owned(), (*label).to_owned())].into(),
        annotations: [("a".to_owned(), "b".to_owned())].into(),
        policy: None,
        security_policy: None,
        created_at: None,
    };
    Snapshot {
        http_routes: routes.iter().map(route).collect::<Resources<Route<_>>>(),
        ..Snapshot::default()
    }
}

fn fault(object: &str) -> NodeViolation {
    NodeViolation {
        object: object.to_owned(),
        path: "rules[0]".to_owned(),
        message: "is wrong".to_owned(),
    }
}

/// A ward with a clock of its own.
struct Test {
    ward: Ward,
    now: Instant,
    wanted: Snapshot,
}

impl Test {
    fn new() -> Self {
        Self {
            ward: Ward::new(RETRY),
            now: Instant::now(),
            wanted: snapshot(&[("a", "1"), ("b", "1")]),
        }
    }

    fn refuse(&mut self, node: &str, objects: &[&str], nack: Nack) -> bool {
        let faults: Vec<_> = objects.iter().map(|object| fault(object)).collect();
        self.ward
            .refused(node, &self.wanted, &faults, nack, self.now)
    }

    /// Time passes until it changes something; gives how long that took.
    fn pass(&mut self) -> Duration {
        let next = self.ward.next_change().unwrap();
        let passed = next.duration_since(self.now);
        self.now = next;
        self.settle();
        passed
    }

    fn settle(&mut self) {
        self.ward.settle(&self.wanted, self.now);
    }

    fn left_out(&self) -> Vec<String> {
        let list = self.ward.list();
        let out = list.iter().filter(|refused| !refused.is_tried);
        out.map(|refused| refused.part.key.to_string()).collect()
    }

    fn shown(&self) -> usize {
        self.ward.list().len()
    }
}

#[test]
fn a_newcomer_is_left_out_at_the_second_refusal() {
    let mut test = Test::new();
    assert!(!test.refuse("dp", &["HTTPRoute shop/a"], Nack::First));
    assert!(test.refuse("dp", &["HTTPRoute shop/a"], Nack::Again));
    test.settle();
    assert_eq!(test.left_out(), ["shop/a"]);
    let list = test.ward.list();
    assert!(
        list[0]
            .message
            .contains("data plane dp refused it: rules[0]: is wrong"),
        "{}",
        list[0].message
    );
}

#[test]
fn only_what_is_in_the_snapshot_can_be_left_out() {
    let rows: [&[&str]; 5] = [
        &[],
        &["Snapshot"],
        &["Delta 123"],
        &["HTTPRoute shop/other"],
        &["GRPCRoute shop/a", "Listener shop/a"],
    ];
    for objects in rows {
        let mut test = Test::new();
        assert!(!test.refuse("dp", objects, Nack::Again), "{objects:?}");
        assert_eq!(test.shown(), 0);
        assert_eq!(test.ward.next_change(), None);
    }
}

#[test]
fn pauses_double_up_to_the_longest_and_one_refusal_is_enough_by_then() {
    let mut test = Test::new();
    assert!(test.refuse("dp", &["HTTPRoute shop/a"], Nack::Again));
    for seconds in [30, 60, 120, 240, 300, 300] {
        assert_eq!(test.pass(), Duration::from_secs(seconds));
        assert!(test.left_out().is_empty(), "it is tried");
        assert_eq!(test.shown(), 1, "and still shown");
        assert!(test.ward.is_trying());
        assert!(test.refuse("dp", &["HTTPRoute shop/a"], Nack::First));
        assert_eq!(test.left_out(), ["shop/a"]);
    }
    assert_eq!(test.ward.kept(test.now)[0].refusals, 7);
}

#[test]
fn it_is_back_once_all_who_refused_it_serve_it() {
    let mut test = Test::new();
    test.refuse("dp-1", &["HTTPRoute shop/a"], Nack::Again);
    test.refuse("dp-2", &["HTTPRoute shop/a"], Nack::First);
    let wanted = test.wanted.clone();
    assert!(!test.ward.served("dp-1", &wanted), "not tried yet");
    test.pass();
    assert!(!test.ward.served("dp-3", &wanted));
    assert!(!test.ward.served("dp-1", &snapshot(&[("b", "1")])));
    assert!(!test.ward.served("dp-1", &wanted));
    assert!(test.ward.served("dp-2", &wanted));
    assert_eq!(test.shown(), 0);
    // Remembered for a while: the next refusal waits longer.
    test.refuse("dp-1", &["HTTPRoute shop/a"], Nack::First);
    assert_eq!(test.pass(), Duration::from_secs(60));
}

#[test]
fn it_is_back_when_nobody_objects_for_a_period_and_forgotten_after_a_long_peace() {
    let mut test = Test::new();
    test.refuse("dp", &["HTTPRoute shop/a"], Nack::Again);
    test.pass();
    assert_eq!(test.pass(), RETRY);
    assert_eq!(test.shown(), 0);
    assert_eq!(test.pass(), RETRY_MAX - RETRY);
    assert_eq!(test.ward.next_change(), None);
    assert!(!test.refuse("dp", &["HTTPRoute shop/a"], Nack::First));
}

#[test]
fn a_changed_or_removed_object_is_free_at_once() {
    for wanted in [&[("a", "2"), ("b", "1")][..], &[("b", "1")]] {
        let mut test = Test::new();
        test.refuse("dp", &["HTTPRoute shop/a"], Nack::Again);
        test.settle();
        test.wanted = snapshot(wanted);
        test.settle();
        assert_eq!(test.shown(), 0);
        assert!(!test.refuse("dp", &["HTTPRoute shop/a"], Nack::First));
    }
}

#[test]
fn objects_due_one_after_the_other_are_tried_together() {
    let mut test = Test::new();
    test.refuse("dp", &["HTTPRoute shop/a"], Nack::Again);
    test.now += Duration::from_secs(1);
    test.refuse("dp", &["HTTPRoute shop/b"], Nack::Again);
    test.pass();
    assert_eq!(test.left_out(), ["shop/b"]);
    assert_eq!(
        test.pass(),
        RETRY / 10,
        "b is due after 1 s and waits for 3"
    );
    assert!(test.left_out().is_empty());
}

#[test]
fn the_quarantine_is_bounded() {
    let mut test = Test::new();
    let names: Vec<String> = (0..OBJECTS_MAX + 1).map(|n| format!("r{n}")).collect();
    let routes: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    test.wanted = snapshot(&routes);
    for name in &names[..OBJECTS_MAX] {
        assert!(test.refuse("dp", &[&format!("HTTPRoute shop/{name}")], Nack::Again));
    }
    let one_more = format!("HTTPRoute shop/{}", names[OBJECTS_MAX]);
    assert!(!test.refuse("dp", &[&one_more], Nack::Again));
    assert_eq!(test.shown(), OBJECTS_MAX);

    for node in 0..100 {
        test.refuse(&format!("dp-{node}"), &["HTTPRoute shop/r0"], Nack::Again);
    }
    let long = NodeViolation {
        message: "é".repeat(TEXT_BYTES_MAX),
        ..fault("HTTPRoute shop/r1")
    };
    let wanted = test.wanted.clone();
    test.ward
        .refused("dp", &wanted, &[long], Nack::Again, test.now);
    let kept = test.ward.kept(test.now);
    assert_eq!(kept[0].nodes.len(), NODES_MAX);
    assert!(kept[1].nodes["dp"].message.len() <= TEXT_BYTES_MAX);
}
