//! What clients carry: what is written, and for how long it is believed.

use ir::SecretText;

use super::*;
use crate::session_secrets::{Overlap, Rotation};

const SECOND: Duration = Duration::from_secs(1);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn endpoint() -> SocketAddr {
    "10.1.2.3:8080".parse().unwrap()
}

fn secrets(secret: &str) -> Arc<SessionSecrets> {
    let secret = SecretText::new(secret.to_owned());
    Arc::new(SessionSecrets::new(&secret).unwrap())
}

fn source(carrier: SessionCarrier) -> SessionPersistence {
    SessionPersistence {
        session_name: None,
        absolute_timeout: None,
        idle_timeout: None,
        carrier,
    }
}

fn compiled(source: &SessionPersistence, secret: &str) -> SessionPolicy {
    let place = Place {
        kind: Kind::Rule,
        name: "Http/shop/cart/0",
        path: "/cart",
    };
    SessionPolicy::compile(source, place, &secrets(secret), &Arc::default())
}

/// What a new client at `endpoint` is given, and its value alone.
fn given(policy: &SessionPolicy, at: SystemTime) -> (HeaderName, String, String) {
    let (name, value) = policy.write(None, 7, endpoint(), false, at).unwrap();
    let text = value.to_str().unwrap().to_owned();
    let value = match policy.cookie() {
        Some(cookie) => text
            .strip_prefix(&format!("{cookie}="))
            .unwrap()
            .split(';')
            .next()
            .unwrap(),
        None => &text,
    };
    (name, text.clone(), value.to_owned())
}

#[test]
fn each_carrier_says_it_in_its_way() {
    let mut permanent = source(SessionCarrier::PermanentCookie);
    permanent.absolute_timeout = Some(3600 * SECOND);
    permanent.session_name = Some("basket".to_owned());
    let rest = "; Path=/cart; HttpOnly; SameSite=Lax";
    for (source, field, begins, ends) in [
        (
            source(SessionCarrier::SessionCookie),
            "set-cookie",
            "nantian-session-",
            rest.to_owned(),
        ),
        (
            permanent,
            "set-cookie",
            "basket=",
            format!("{rest}; Max-Age=3600"),
        ),
        (
            source(SessionCarrier::Header),
            "x-nantian-session",
            "",
            String::new(),
        ),
    ] {
        let policy = compiled(&source, "secret");
        let (name, text, _) = given(&policy, now());
        assert_eq!(name, field);
        assert!(text.starts_with(begins) && text.ends_with(&ends), "{text}");
    }
    let policy = compiled(&source(SessionCarrier::SessionCookie), "secret");
    let (_, value) = policy.write(None, 7, endpoint(), true, now()).unwrap();
    assert!(value.to_str().unwrap().ends_with("; Secure"));
}

#[test]
fn what_is_written_is_read_by_every_replica_and_shows_nothing() {
    for address in ["10.1.2.3:8080", "[2001:db8::7]:443", "127.0.0.1:1"] {
        let endpoint: SocketAddr = address.parse().unwrap();
        let one = compiled(&source(SessionCarrier::Header), "secret");
        let two = compiled(&source(SessionCarrier::Header), "secret");
        let (_, value) = one.write(None, 7, endpoint, false, now()).unwrap();
        let session = two.read(value.as_bytes(), now()).unwrap();
        assert_eq!((session.endpoint, session.cluster), (endpoint, 7));
        let opened = URL_SAFE_NO_PAD.decode(value.as_bytes()).unwrap();
        assert!(
            !opened
                .windows(2)
                .any(|it| it == endpoint.port().to_be_bytes())
                || address.ends_with(":1")
        );
        let other = compiled(&source(SessionCarrier::Header), "another secret");
        assert_eq!(other.read(value.as_bytes(), now()), None);
    }
}

#[test]
fn nonsense_is_no_session() {
    let policy = compiled(&source(SessionCarrier::SessionCookie), "secret");
    let (_, _, value) = given(&policy, now());
    let long = "A".repeat(100_000);
    let changed = format!("B{}", &value[1..]);
    let shorter = &value[..value.len() - 1];
    for text in ["", "x", "====", "10.1.2.3:8080", &long, &changed, shorter] {
        assert_eq!(policy.read(text.as_bytes(), now()), None, "{text:.40}");
    }
    assert!(policy.read(value.as_bytes(), now()).is_some());
}

#[test]
fn a_session_ends_with_its_absolute_timeout_however_often_it_is_used() {
    let mut source = source(SessionCarrier::PermanentCookie);
    source.absolute_timeout = Some(100 * SECOND);
    source.idle_timeout = Some(16 * SECOND);
    let policy = compiled(&source, "secret");
    let (_, _, mut value) = given(&policy, now());
    let mut passed = 0;
    while passed < 99 {
        passed += 3;
        let at = now() + passed * SECOND;
        let Some(held) = policy.read(value.as_bytes(), at) else {
            break;
        };
        if let Some((_, cookie)) = policy.write(Some(&held), 7, endpoint(), false, at) {
            let text = cookie.to_str().unwrap();
            let left = 100 - passed;
            assert!(text.ends_with(&format!("; Max-Age={left}")), "{text}");
            value = text.split(['=', ';']).nth(1).unwrap().to_owned();
        }
    }
    assert_eq!(passed, 99, "it is kept to the end");
    assert!(policy.read(value.as_bytes(), now() + 99 * SECOND).is_some());
    assert!(
        policy
            .read(value.as_bytes(), now() + 100 * SECOND)
            .is_none()
    );
}

#[test]
fn a_pause_longer_than_the_idle_timeout_ends_it_and_a_shorter_one_never() {
    let mut source = source(SessionCarrier::Header);
    source.idle_timeout = Some(80 * SECOND);
    let policy = compiled(&source, "secret");
    let (_, _, value) = given(&policy, now());
    // Read 9 s later it is not written anew; the pause is counted from the last request all the same.
    let held = policy.read(value.as_bytes(), now() + 9 * SECOND).unwrap();
    let again = policy.write(Some(&held), 7, endpoint(), false, now() + 9 * SECOND);
    assert_eq!(again, None);
    for (seconds, lives) in [(88, true), (89, true), (90, false), (1000, false)] {
        let read = policy.read(value.as_bytes(), now() + seconds * SECOND);
        assert_eq!(read.is_some(), lives, "{seconds}");
    }
    let due = policy.write(Some(&held), 7, endpoint(), false, now() + 10 * SECOND);
    assert!(due.is_some(), "an eighth of it has passed");
}

#[test]
fn who_has_what_it_needs_is_told_nothing() {
    let policy = compiled(&source(SessionCarrier::SessionCookie), "secret");
    let (_, _, value) = given(&policy, now());
    let held = policy.read(value.as_bytes(), now()).unwrap();
    let later = now() + 1_000_000 * SECOND;
    assert_eq!(
        policy.write(Some(&held), 7, endpoint(), false, later),
        None,
        "a session without limits lasts"
    );
    let elsewhere: SocketAddr = "10.1.2.4:8080".parse().unwrap();
    assert!(
        policy
            .write(Some(&held), 7, elsewhere, false, later)
            .is_some()
    );
    assert!(
        policy
            .write(Some(&held), 8, endpoint(), false, later)
            .is_some()
    );
}

#[test]
fn who_was_told_under_a_former_secret_is_told_again() {
    let overlap = Overlap {
        seals_after: Duration::ZERO,
        former_opens_for: SECOND,
    };
    let secret = |text: &str| SecretText::new(text.to_owned());
    let mut rotation = Rotation::new(&secret("former"), overlap).unwrap();
    let place = Place {
        kind: Kind::Rule,
        name: "x",
        path: "/",
    };
    let source = source(SessionCarrier::SessionCookie);
    let policy = SessionPolicy::compile(&source, place, &rotation.secrets(), &Arc::default());
    let (_, _, value) = given(&policy, now());
    rotation
        .look(Some(&secret("newer")), Duration::ZERO)
        .unwrap();
    let held = policy.read(value.as_bytes(), now()).unwrap();
    let (_, again) = policy
        .write(Some(&held), 7, endpoint(), false, now())
        .unwrap();
    rotation.look(None, SECOND).unwrap();
    assert_eq!(policy.read(value.as_bytes(), now()), None, "it has ended");
    let value = again.to_str().unwrap().split(['=', ';']).nth(1).unwrap();
    let held = policy.read(value.as_bytes(), now()).unwrap();
    assert_eq!(held.endpoint, endpoint());
    let third = policy.write(Some(&held), 7, endpoint(), false, now());
    assert_eq!(third, None, "once is enough");
}

#[test]
fn cookies_are_sent_back_for_the_path_of_their_rule() {
    let at = |path: PathMatch| HttpMatch {
        path,
        method: None,
        headers: Vec::new(),
        query_params: Vec::new(),
    };
    let prefix = |text: &str| at(PathMatch::Prefix(text.to_owned()));
    let exact = |text: &str| at(PathMatch::Exact(text.to_owned()));
    for (matches, expected) in [
        (vec![prefix("/a")], "/a"),
        (vec![exact("/a/b")], "/a/b"),
        (vec![prefix("/a"), prefix("/a")], "/a"),
        (vec![prefix("/a"), prefix("/b")], "/"),
        (Vec::new(), "/"),
    ] {
        assert_eq!(path_of(&matches), expected);
    }
    for (path, expected) in [
        ("/a;b", "/"),
        ("a", "/"),
        ("/a b", "/"),
        ("/a%20b", "/a%20b"),
    ] {
        assert_eq!(cookie_path(path), expected, "{path}");
    }
}

#[test]
fn policies_are_counted_as_long_as_a_configuration_holds_them() {
    let metrics = Arc::<SessionMetrics>::default();
    let place = |kind| Place {
        kind,
        name: "x",
        path: "/",
    };
    let source = source(SessionCarrier::Header);
    let compile = |kind| SessionPolicy::compile(&source, place(kind), &secrets("s"), &metrics);
    let (rule, cluster) = (compile(Kind::Rule), compile(Kind::Cluster));
    assert_eq!((metrics.rules.value(), metrics.backends.value()), (1, 1));
    drop((rule, cluster));
    assert_eq!((metrics.rules.value(), metrics.backends.value()), (0, 0));
}
