//! 2,500 ListenerSets with a host of their own over TLS, and 16 routes each: 40,000 routes.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::free_port;
use e2e::manifest;
use serde_json::{Value, json};

use crate::objects;
use crate::pods;
use crate::report::Report;
use crate::stage::{Stage, as_figure};
use crate::usage::{Meter, memory};

const NAMESPACES: usize = 50;
/// In each namespace, unless [`FEWER`] says so.
const SETS: usize = 50;
/// Variable with another number: whether twice as many take twice as long is seen in few, too.
const FEWER: &str = "PROPAGATION_SETS";
const ROUTES: usize = 16;
/// How many hosts are asked.
const SAMPLES: usize = 100;
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) async fn measure(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    let (data_plane, shim) = (stage.data_plane.process.id(), stage.shim.process.id());
    report.note("data plane, idle", memory(data_plane)?, "MiB");
    let authority = Authority::new("propagation");
    let sets = match env::var(FEWER) {
        Ok(number) => number.parse().context(FEWER)?,
        Err(_) => SETS,
    };
    let all_sets = NAMESPACES * sets;
    let port = free_port();
    let mut first = Vec::new();
    for number in 0..NAMESPACES {
        let namespace = format!("sets-{number}");
        first.push(objects::namespace(&namespace));
    }
    stage.create_all(first).await?;
    let secrets = (0..NAMESPACES).map(|number| {
        let host = format!("*.sets-{number}.example.com");
        let identity = authority.server(&[&host]);
        manifest::certificate(&format!("sets-{number}/cert"), &identity)
    });
    stage.create_all(secrets.collect()).await?;
    let load = Meter::start(shim)?;
    let begun = Instant::now();
    for kind in [service, slice, set] {
        let all = (0..all_sets).map(|number| kind(number, port, stage.pods.port));
        stage.create_all(all.collect()).await?;
        report.say(&format!("{all_sets} objects more"));
    }
    // All routes of a set together, as whoever adds an application does.
    let step = all_sets;
    for part in 0..ROUTES {
        let all = (part * step..(part + 1) * step).map(|it| route(it / ROUTES, it % ROUTES));
        stage.create_all(all.collect()).await?;
        let shim = memory(shim)?;
        report.say(&format!("{step} routes more, the shim has {shim:.0} MiB"));
    }
    let written = begun.elapsed();
    report.note(
        "Services, slices, ListenerSets and routes written",
        written.as_secs_f64(),
        "s",
    );
    let clients = TlsClient::trusting(&authority);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut failures = 0;
    for sample in 0..SAMPLES {
        let number = (sample * 769 + all_sets - 1) % all_sets;
        let path = format!("/{}", ROUTES - 1 - sample % ROUTES);
        let since = Instant::now();
        loop {
            match ask(&clients, address, &host(number), &path).await {
                Ok(200) => break,
                // The last ones may be on their way.
                _ if sample == 0 => {
                    ensure!(since.elapsed() < LIMIT, "{} is not served", host(number))
                }
                _ => {
                    failures += 1;
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    report.note(
        "served after the last was written",
        (begun.elapsed() - written).as_secs_f64(),
        "s",
    );
    report.goal(
        "hosts of 100 that do not answer 200",
        as_figure(failures),
        "",
        0.0,
    );
    stage.counted(&["attachedListenerSets"], all_sets).await?;
    let routes = all_sets * ROUTES;
    let held = memory(data_plane)?;
    report.goal(
        &format!("data plane with {routes} routes"),
        held,
        "MiB",
        140.0,
    );
    report.note(&format!("shim with {routes} routes"), memory(shim)?, "MiB");
    report.note("CPU of the shim for that", load.seconds()?, "s");
    Ok(())
}

async fn ask(
    clients: &TlsClient,
    address: SocketAddr,
    host: &str,
    path: &str,
) -> anyhow::Result<u16> {
    let stream = clients.connect(address, host).await?;
    let answer = Http1Client::over(stream).get(host, path).await?;
    Ok(answer.status.as_u16())
}

fn place(number: usize) -> (String, String) {
    let namespace = format!("sets-{}", number % NAMESPACES);
    (namespace, format!("app-{}", number / NAMESPACES))
}

fn host(number: usize) -> String {
    let (namespace, name) = place(number);
    format!("{name}.{namespace}.example.com")
}

fn service(number: usize, _: u16, _: u16) -> Value {
    let (namespace, name) = place(number);
    objects::service(&namespace, &name)
}

fn slice(number: usize, _: u16, port: u16) -> Value {
    let (namespace, name) = place(number);
    objects::slice(&namespace, &name, &[pods::address(number)], port)
}

fn set(number: usize, port: u16, _: u16) -> Value {
    let (namespace, name) = place(number);
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ListenerSet",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "parentRef": { "name": "gw", "namespace": "default" },
            "listeners": [{
                "name": "https", "hostname": host(number), "port": port, "protocol": "HTTPS",
                "tls": { "certificateRefs": [{ "name": "cert" }] },
            }],
        },
    })
}

fn route(number: usize, way: usize) -> Value {
    let (namespace, name) = place(number);
    let parent = json!({
        "group": "gateway.networking.k8s.io", "kind": "ListenerSet", "name": name,
    });
    let rules = objects::plain_rules(&format!("/{way}"), &name, 80);
    objects::route_of(
        &namespace,
        &format!("{name}-{way}"),
        &host(number),
        parent,
        rules,
    )
}
