//! How pods of data planes give way: to newer ones in a rollout, and to whoever drains a node.

use e2e::chart::{Tools, objects, title};
use serde_json::{Value, json};

/// The data planes' object of this kind, as the chart renders it with these values; nothing where it
/// makes none.
fn of_data_planes(tools: &Tools, kind: &str, set: &str) -> Option<Value> {
    let text = tools
        .render(&["--set", "crds.install=false", "--set", set])
        .unwrap();
    let wanted = format!("{kind}/nantian-gw-dataplane");
    let mut objects = objects(&text).unwrap();
    objects.retain(|it| title(it) == wanted);
    objects.pop()
}

/// The strategy of the data planes' workload is this one.
fn gives_way(tools: &Tools, set: &str, strategy: Value) {
    let (kind, field) = match set.contains("kind=DaemonSet") {
        true => ("DaemonSet", "updateStrategy"),
        false => ("Deployment", "strategy"),
    };
    let workload = of_data_planes(tools, kind, set).unwrap();
    assert_eq!(workload["spec"][field], strategy, "{set}");
}

fn rolling(surge: impl Into<Value>, unavailable: impl Into<Value>) -> Value {
    let (surge, unavailable) = (surge.into(), unavailable.into());
    let steps = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    json!({"type": "RollingUpdate", "rollingUpdate": steps})
}

#[test]
fn pods_that_cannot_share_a_node_are_replaced_in_place() {
    let Some(tools) = Tools::shared() else { return };
    let host_port = "dataplane.extraContainers[0].name=shipper,\
                     dataplane.extraContainers[0].image=shipper:1,\
                     dataplane.extraContainers[0].ports[0].containerPort=24224,\
                     dataplane.extraContainers[0].ports[0].hostPort=24224";
    for kind in ["Deployment", "DaemonSet"] {
        for (set, strategy) in [
            ("", rolling(1, 0)),
            ("dataplane.hostNetwork=true", rolling(0, 1)),
            (host_port, rolling(0, 1)),
            ("dataplane.antiAffinity=hard", rolling(0, 1)),
            (
                "dataplane.antiAffinity=hard,dataplane.affinity.nodeAffinity.a=b",
                rolling(1, 0),
            ),
        ] {
            let set = format!("dataplane.kind={kind},{set}");
            gives_way(tools, set.trim_end_matches(','), strategy);
        }
    }
}

#[test]
fn what_a_user_says_of_rollouts_holds() {
    let Some(tools) = Tools::shared() else { return };
    for (kind, field, other) in [
        ("Deployment", "strategy", "Recreate"),
        ("DaemonSet", "updateStrategy", "OnDelete"),
    ] {
        let of_other_type = format!("type={other}");
        for (said, strategy) in [
            (
                "rollingUpdate.maxSurge=1,rollingUpdate.maxUnavailable=0",
                rolling(1, 0),
            ),
            ("rollingUpdate.maxSurge=2", rolling(2, 0)),
            ("rollingUpdate.maxSurge=0", rolling(0, 1)),
            ("rollingUpdate.maxUnavailable=30%", rolling(0, "30%")),
            ("rollingUpdate.maxUnavailable=0%", rolling(1, "0%")),
            // Kubernetes refuses steps beside another type.
            (&of_other_type, json!({"type": other})),
        ] {
            for on_nodes in [false, true] {
                let said = said.split(',');
                let said: Vec<_> = said.map(|it| format!("dataplane.{field}.{it}")).collect();
                let said = said.join(",");
                let set = format!("dataplane.kind={kind},dataplane.hostNetwork={on_nodes},{said}");
                gives_way(tools, &set, strategy.clone());
            }
        }
    }
}

#[test]
fn no_budget_keeps_the_node_of_a_last_pod_from_being_drained() {
    let Some(tools) = Tools::shared() else { return };
    let stays = |pods| Some(("minAvailable", json!(pods)));
    let goes = Some(("maxUnavailable", json!(1)));
    for (set, budget) in [
        ("dataplane.replicas=2", stays(1)),
        ("dataplane.replicas=1", None),
        ("dataplane.replicas=1,hpa.enabled=true", stays(1)),
        ("hpa.enabled=true,hpa.dataplane.minReplicas=1", goes.clone()),
        (
            "hpa.enabled=true,hpa.dataplane.minReplicas=1,dataplane.pdb.minAvailable=50%",
            goes,
        ),
        (
            "hpa.enabled=true,hpa.dataplane.minReplicas=3,dataplane.pdb.minAvailable=2",
            stays(2),
        ),
        // Nothing scales these, and Kubernetes knows no `maxUnavailable` of them.
        (
            "dataplane.kind=DaemonSet,hpa.enabled=true,hpa.dataplane.minReplicas=1",
            stays(1),
        ),
        (
            "hpa.enabled=true,hpa.dataplane.minReplicas=1,dataplane.pdb.enabled=false",
            None,
        ),
    ] {
        let rendered = of_data_planes(tools, "PodDisruptionBudget", set);
        let Some((field, pods)) = budget else {
            assert_eq!(rendered, None, "{set}");
            continue;
        };
        let mut spec = rendered.unwrap()["spec"].take();
        assert_eq!(spec[field], pods, "{set}");
        let spec = spec.as_object_mut().unwrap();
        spec.remove(field);
        let others: Vec<_> = spec.keys().filter(|key| key.starts_with('m')).collect();
        assert!(others.is_empty(), "{set}: {others:?} beside {field}");
    }
}
