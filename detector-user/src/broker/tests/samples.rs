//! The manifests a cluster gets, in the local Broker.

use super::*;
use crate::broker::topology::ServiceAddress;

fn samples(function: SocketAddr) -> Topology {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples");
    let manifests = Manifests::read(&[samples]).expect("the samples are readable");
    assert_eq!(manifests.skipped["Service"], 1);
    let service: ServiceAddress = format!("buy-function=http://{function}").parse().unwrap();
    Topology::new(manifests, &[service]).expect("the samples fit together")
}

#[tokio::test]
async fn a_press_reaches_the_function_and_its_reply_ends_in_the_orders_channel() {
    let mut function =
        Subscriber::answering(vec![status(200), reply("com.example.arshop.buy.accepted")]).await;
    let mut bench = Bench::with_topology(samples(function.addr), Timeouts::default()).await;
    assert_eq!(code(bench.event("com.example.arshop.session.started")).await, 202);
    assert_eq!(code(bench.event("com.example.arshop.buy.clicked")).await, 202);
    assert_eq!(code(bench.event("com.example.other")).await, 202);
    for event_type in ["com.example.arshop.session.started", "com.example.arshop.buy.clicked"] {
        assert_eq!(function.next().await.header("ce-type"), Some(event_type));
    }
    assert_eq!(function.others(), 0);
    let mut seen = Vec::new();
    while let Ok(report) = bench.reports.try_recv() {
        seen.push((report.trigger, report.subscriber));
    }
    let function = format!("http://{}/", function.addr);
    let expected = [
        ("trigger edge/warm-up", function.as_str()),
        ("trigger edge/buy", &function),
        ("trigger edge/buy-accepted", "/edge/orders"),
        ("trigger edge/buy", "/edge/default"),
    ];
    assert_eq!(seen, expected.map(|(trigger, to)| (trigger.to_owned(), to.to_owned())));
}

#[tokio::test]
async fn the_channel_pipeline_reaches_the_function_too() {
    let mut function = Subscriber::answering(vec![]).await;
    let bench = Bench::with_topology(samples(function.addr), Timeouts::default()).await;
    let request = bench.request("/edge/actions").headers(event_headers("any"));
    assert_eq!(code(request).await, 202);
    assert_eq!(function.next().await.header("ce-type"), Some("any"));
}

/// All other manifests are at least YAML of Kubernetes objects.
#[test]
fn base_and_overlay_are_kubernetes_objects() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let read = Manifests::read(&[manifests.join("base"), manifests.join("overlays/site-a")])
        .expect("readable");
    for kind in ["Namespace", "DaemonSet", "SinkBinding", "ServiceAccount", "Role", "RoleBinding"] {
        assert_eq!(read.skipped.get(kind), Some(&1), "{kind}");
    }
}
