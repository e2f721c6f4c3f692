//! The collector, fed by hand: what it hands out, and when statuses are compared again.

use std::sync::Mutex;

use super::*;
use crate::fake_api::{self, Answer};

/// A collector that has listed its routes.
struct Stand {
    changes: mpsc::Sender<Change>,
    files: watch::Receiver<Files>,
    known: Arc<Known>,
}

fn source() -> Source {
    Source {
        group: "gateway.networking.k8s.io".into(),
        version: "v1".into(),
        kind: "HTTPRoute".to_owned(),
        plural: "httproutes".to_owned(),
        namespace: None,
    }
}

fn route(name: &str, status: &str) -> Change {
    let text = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": name, "namespace": "shop", "generation": 1 },
        "spec": { "parentRefs": [{ "name": "gw" }] },
        "status": { "said": status },
    });
    let object = serde_json::from_value(text).expect("it is an object");
    Change::Listed(source(), Box::new(object))
}

fn removed(name: &str) -> Change {
    Change::Deleted(source(), format!("shop/{name}").into())
}

impl Stand {
    async fn start(sync_period: Duration, max_input_objects: Option<usize>) -> Self {
        // Nobody is asked: nothing names a Secret.
        let client = fake_api::client(|_, _| Answer::Never);
        Self::of(
            client,
            vec![route("first", "")],
            sync_period,
            max_input_objects,
        )
        .await
    }

    /// One that has listed these objects, and got from the client what they name.
    async fn of(
        client: Client,
        objects: Vec<Change>,
        sync_period: Duration,
        max_input_objects: Option<usize>,
    ) -> Self {
        let (changes, received) = mpsc::channel(CHANGES_MAX);
        let (synced, files) = oneshot::channel();
        let known = Arc::new(Known::default());
        let collector = Collector {
            view: ClusterView::default(),
            sources: HashMap::new(),
            faults: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            secrets: Secrets::new(client, Arc::default(), changes.clone()),
            known: Arc::clone(&known),
            metrics: Arc::default(),
            settle_delay: Duration::from_millis(20),
            sync_period,
            max_input_objects,
            is_discovered: false,
            last_good: None,
        };
        tokio::spawn(collector.run(received, synced));
        let stand = Self {
            changes,
            files: watch::channel(Files::default()).1,
            known,
        };
        stand.send(Change::Installed(vec![source()])).await;
        stand.send(Change::ListBegins(source())).await;
        for object in objects {
            stand.send(object).await;
        }
        stand.send(Change::ListEnds(source())).await;
        let files = tokio::time::timeout(Duration::from_secs(60), files).await;
        let files = files.expect("it never synced");
        let files = files.expect("everything was listed");
        Self { files, ..stand }
    }

    async fn send(&self, change: Change) {
        let sent = self.changes.send(change).await;
        assert!(sent.is_ok(), "the collector is gone");
    }

    /// Waits for what is handed out next, to be as claimed.
    async fn until(&mut self, claim: impl Fn(&Files) -> bool) {
        let limit = Duration::from_secs(20);
        let there = tokio::time::timeout(limit, self.files.wait_for(claim)).await;
        assert!(matches!(there, Ok(Ok(_))), "it was never handed out");
    }
}

#[tokio::test]
async fn with_more_than_max_input_objects_the_view_before_stays_and_it_is_told() {
    let mut stand = Stand::start(Duration::from_secs(60), Some(2)).await;
    let has = |files: &Files, names: &[&str]| {
        let keys = files.view.keys(Kind::HttpRoute);
        let names: Vec<Arc<str>> = names.iter().map(|it| format!("shop/{it}").into()).collect();
        keys == names
    };
    stand.send(route("second", "")).await;
    let both = ["first", "second"];
    stand
        .until(|it| has(it, &both) && it.faults.is_empty())
        .await;
    stand.send(route("third", "")).await;
    let is_told = |files: &Files| {
        let mut faults = files.faults.iter();
        faults.any(|it| it.message.contains("translatorLimits.maxInputObjects 2"))
    };
    stand.until(|it| has(it, &both) && is_told(it)).await;
    stand.send(removed("first")).await;
    let rest = ["second", "third"];
    stand
        .until(|it| has(it, &rest) && it.faults.is_empty())
        .await;
}

#[tokio::test]
async fn after_every_sync_period_all_statuses_are_compared_again() {
    let stand = Stand::start(Duration::from_millis(50), None).await;
    let first: Arc<str> = "shop/first".into();
    for _ in 0..3 {
        drop(stand.known.take_touched());
        let touched = async {
            loop {
                stand.known.changed().await;
                let touched = stand.known.take_touched();
                if touched.contains(&(Kind::HttpRoute, first.clone())) {
                    return;
                }
            }
        };
        let limit = Duration::from_secs(20);
        let within = tokio::time::timeout(limit, touched).await;
        assert!(within.is_ok(), "nothing is compared");
    }
}

#[tokio::test]
async fn an_event_of_a_status_hands_out_nothing_and_is_known() {
    let mut stand = Stand::start(Duration::from_secs(60), None).await;
    stand.files.mark_unchanged();
    stand.send(route("first", "something")).await;
    stand.send(route("second", "")).await;
    stand.until(|it| it.view.len() == 2).await;
    let entry = stand.known.get(Kind::HttpRoute, "shop/first");
    let status = entry.map(|entry| entry.status.to_string());
    assert_eq!(status.as_deref(), Some(r#"{"said":"something"}"#));
    stand.files.mark_unchanged();
    stand.send(route("second", "more")).await;
    let window = Duration::from_millis(200);
    let handed_out = tokio::time::timeout(window, stand.files.changed()).await;
    assert!(handed_out.is_err(), "a status made a translation");
}

/// A route that names Secrets.
fn naming(name: &str, secrets: &[String]) -> Change {
    let secrets: Vec<_> = secrets
        .iter()
        .map(|it| json!({ "secretRef": { "name": it } }))
        .collect();
    let text = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": name, "namespace": "shop", "generation": 1 },
        "spec": { "parentRefs": [{ "name": "gw" }], "ours": secrets },
    });
    let object = serde_json::from_value(text).expect("it is an object");
    Change::Listed(source(), Box::new(object))
}

fn secret(path: &str) -> Answer {
    let name = path.rsplit('/').next().unwrap_or_default();
    Answer::Is(
        200,
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "namespace": "shop" }, "data": {},
        }),
    )
}

async fn named(client: Client, secrets: &[&str]) -> Stand {
    let secrets: Vec<_> = secrets.iter().map(|&it| it.to_owned()).collect();
    let objects = vec![naming("first", &secrets)];
    Stand::of(client, objects, Duration::from_secs(60), None).await
}

#[tokio::test]
async fn what_no_object_can_be_called_is_missing_and_not_asked_for() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let client = fake_api::client(move |_, path| {
        seen.lock().unwrap().push(path.to_owned());
        if path.ends_with("/good") {
            secret(path)
        } else {
            Answer::error(400)
        }
    });
    let stand = named(client, &["a/b", "..", "UPPER", "good"]).await;
    let keys = stand.files.borrow().view.keys(Kind::Secret);
    assert_eq!(keys, ["shop/good".into()]);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["/api/v1/namespaces/shop/secrets/good"]);
}

#[tokio::test]
async fn those_that_are_refused_hold_nobody_up_and_come_when_they_may() {
    let may = Arc::new(Mutex::new(false));
    let allowed = Arc::clone(&may);
    let client = fake_api::client(move |_, path| {
        if path.ends_with("/z-good") || *allowed.lock().unwrap() {
            secret(path)
        } else {
            Answer::error(403)
        }
    });
    let mut secrets: Vec<_> = (0..40).map(|it| format!("a-refused-{it}")).collect();
    secrets.push("z-good".to_owned());
    let objects = vec![naming("first", &secrets)];
    let mut stand = Stand::of(client, objects, Duration::from_secs(60), None).await;
    let keys = stand.files.borrow().view.keys(Kind::Secret);
    assert_eq!(keys, ["shop/z-good".into()]);
    *may.lock().unwrap() = true;
    stand
        .until(|it| it.view.keys(Kind::Secret).len() == 41)
        .await;
}

#[tokio::test]
async fn an_api_server_that_cannot_answer_yet_is_waited_for() {
    let mut tries = 0;
    let client = fake_api::client(move |_, path| {
        tries += 1;
        match tries {
            1 => Answer::error(503),
            2 => Answer::error(401),
            _ => secret(path),
        }
    });
    let stand = named(client, &["slow"]).await;
    let keys = stand.files.borrow().view.keys(Kind::Secret);
    assert_eq!(keys, ["shop/slow".into()]);
}
