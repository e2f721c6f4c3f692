//! Gateways that ask clients for certificates (`spec.tls.frontend`), as manifests and over real TLS:
//! one setting for all ports, another for one port.

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::TlsClient;
use e2e::{Running, Scenario, manifest};
use serde_json::{Value, json};

/// The cast: who vouches for clients on all ports, and who on port 8443.
struct Cast {
    all: Authority,
    one: Authority,
    it: Running,
}

fn authority_map(name: &str, authority: &Authority) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "namespace": "default", "name": name },
        "data": { "ca.crt": authority.pem() },
    })
}

async fn cast(mode: Option<&str>) -> Cast {
    let mut it = Scenario::new().unwrap();
    let (all, one) = (Authority::new("all"), Authority::new("one"));
    let names = &["example.org", "second-example.org"];
    it.certificate("default/cert", names).unwrap();
    it.backend("default/v1", 8080).await.unwrap();
    it.backend("default/v2", 8080).await.unwrap();
    let validation = |map: &str| {
        let mut validation =
            json!({ "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": map }] });
        if let Some(mode) = mode {
            validation["mode"] = json!(mode);
        }
        json!({ "validation": validation })
    };
    let listener = |name: &str, port: u16| {
        json!({
            "name": name,
            "port": port,
            "protocol": "HTTPS",
            "tls": { "certificateRefs": [{ "name": "cert" }] },
        })
    };
    let mut second = listener("https-with-hostname", 8443);
    second["hostname"] = json!("second-example.org");
    let mut gateway = manifest::gateway("default/gw", vec![listener("https", 443), second]);
    gateway["spec"]["tls"] = json!({ "frontend": {
        "default": validation("all"),
        "perPort": [{ "port": 8443, "tls": validation("one") }],
    }});
    let mut on_second = manifest::route_to("default/second", "default/gw", &[], "v2:8080");
    on_second["spec"]["parentRefs"][0]["sectionName"] = json!("https-with-hostname");
    let first = manifest::route_to("default/first", "default/gw", &["example.org"], "v1:8080");
    let maps = [authority_map("all", &all), authority_map("one", &one)];
    it.add("maps.yaml", maps).unwrap();
    it.add("gateway.yaml", [gateway, first, on_second]).unwrap();
    let it = it.serve(&[443, 8443]).await.unwrap();
    Cast { all, one, it }
}

impl Cast {
    /// The backend that answers, or nothing when the client is not let in.
    async fn ask(&self, port: u16, host: &str, who: Option<&Authority>) -> Option<String> {
        let mut client = TlsClient::trusting(self.it.scenario.authority()).alpn(&["h2"]);
        if let Some(authority) = who {
            client = client.identity(&authority.client("client"));
        }
        let stream = client.connect(self.it.ports.address(port), host).await;
        let client = Http2Client::over(stream.ok()?).await.ok()?;
        let answer = client.get(host, "/").await.ok()?;
        Some(answer.header("x-backend").to_owned())
    }
}

#[tokio::test]
async fn only_holders_of_a_valid_certificate_come_in_by_the_setting_of_their_port() {
    for mode in [None, Some("AllowValidOnly")] {
        let cast = cast(mode).await;
        let (v1, v2) = (Some("default/v1".to_owned()), Some("default/v2".to_owned()));
        for (port, host, who, expected) in [
            (443, "example.org", Some(&cast.all), v1),
            (443, "example.org", Some(&cast.one), None),
            (443, "example.org", None, None),
            (8443, "second-example.org", Some(&cast.one), v2),
            (8443, "second-example.org", Some(&cast.all), None),
            (8443, "second-example.org", None, None),
        ] {
            let found = cast.ask(port, host, who).await;
            assert_eq!(found, expected, "{mode:?} {port} {}", who.is_some());
        }
    }
}

#[tokio::test]
async fn everybody_comes_in_where_the_fallback_is_asked_for_and_the_gateway_says_so() {
    let cast = cast(Some("AllowInsecureFallback")).await;
    for (port, host, backend) in [
        (443, "example.org", "default/v1"),
        (8443, "second-example.org", "default/v2"),
    ] {
        for who in [Some(&cast.all), Some(&cast.one), None] {
            let found = cast.ask(port, host, who).await;
            assert_eq!(found.as_deref(), Some(backend), "{port} {}", who.is_some());
        }
    }
    let told = cast.it.told("Gateway", "default/gw").await;
    let expected = "InsecureFrontendValidationMode=True ConfigurationChanged";
    assert!(told.iter().any(|line| line.contains(expected)), "{told:?}");
}
