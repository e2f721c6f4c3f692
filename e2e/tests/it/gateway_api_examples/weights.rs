//! Examples that split traffic.

use e2e::manifest;

use super::{assert_share, assert_told, example, with_parent};

#[tokio::test]
async fn simple_split_is_ninety_to_ten() {
    let files = [
        "traffic-splitting/simple-split.yaml",
        "traffic-splitting/traffic-split-2.yaml",
    ];
    for file in files {
        let Some(mut it) = with_parent(file) else {
            return;
        };
        it.backend("default/foo-v1", 8080).await.unwrap();
        it.backend("default/foo-v2", 8080).await.unwrap();
        let it = it.serve(&[80]).await.unwrap();
        let seen = it.spread(80, "foo.example.com", "/", 500).await.unwrap();
        assert_share(&seen, "default/foo-v1", 90.0);
        assert_share(&seen, "default/foo-v2", 10.0);
    }
}

#[tokio::test]
async fn traffic_split_1_sends_only_testers_to_the_next_version() {
    let Some(mut it) = with_parent("traffic-splitting/traffic-split-1.yaml") else {
        return;
    };
    it.backend("default/foo-v1", 8080).await.unwrap();
    it.backend("default/foo-v2", 8080).await.unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let host = "foo.example.com";
    let seen = it.spread(80, host, "/", 50).await.unwrap();
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        [("default/foo-v1".to_owned(), 50)]
    );
    let answer = it
        .get_with(80, host, "/", &[("traffic", "test")])
        .await
        .unwrap();
    assert_eq!(answer.header("x-backend"), "default/foo-v2");
}

#[tokio::test]
async fn traffic_split_3_gives_nothing_to_weight_zero() {
    let Some(mut it) = with_parent("traffic-splitting/traffic-split-3.yaml") else {
        return;
    };
    it.backend("default/foo-v1", 8080).await.unwrap();
    it.backend("default/foo-v2", 8080).await.unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let seen = it.spread(80, "foo.example.com", "/", 100).await.unwrap();
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        [("default/foo-v2".to_owned(), 100)]
    );
}

#[tokio::test]
async fn multicluster_hybrid_fails_the_share_that_nobody_imported() {
    let Some(mut it) = example(&["multicluster/httproute-hybrid.yaml"]) else {
        return;
    };
    it.backend("default/store", 8080).await.unwrap();
    let gateway = manifest::http_gateway("default/external-http", &[("http", 80)]);
    it.add("gateway.yaml", [gateway]).unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let seen = it.spread(80, "any.test", "/", 500).await.unwrap();
    assert_share(&seen, "default/store", 90.0);
    assert_share(&seen, "500 Internal Server Error", 10.0);
    let told = it.told("HTTPRoute", "default/store").await;
    assert_told(
        &told,
        "parent default/external-http ResolvedRefs=False BackendNotFound",
        "there is no ServiceImport",
    );
}
