//! Kafka: librdkafka's threads under the filter, against its mock cluster on the agent's host.

use std::{collections::BTreeSet, time::Duration};

use cloudevents::{AttributesReader, binding::rdkafka::MessageExt};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};
use testbed::{need_root, skip};

use crate::{
    assert_confined,
    bed::{Bed, UE, config_with, eventually, metric, settled},
    start,
};

type Cluster = MockCluster<'static, DefaultProducerContext>;

const TOPIC: &str = "pressed";

fn ids(cluster: &Cluster, count: usize) -> BTreeSet<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("consumer");
    consumer.subscribe(&[TOPIC]).expect("subscribed");
    let mut ids = BTreeSet::new();
    eventually("all events in the topic", || {
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let event = message.expect("message").to_event().expect("event");
            ids.insert(event.id().to_owned());
        }
        ids.len() >= count
    });
    ids
}

/// On a thread inside the host's namespace, where the cluster listens.
fn inside(bed: &Bed) -> bool {
    let cluster = Cluster::new(1).expect("cluster");
    cluster.create_topic(TOPIC, 3, 1).expect("topic");
    let url = format!("kafka://{}/{TOPIC}", cluster.bootstrap_servers());
    let rest = format!(
        "sink: {{url: '{url}'}}
  delivery: {{timeout: 2s, spool: {{directory: spool}}}}"
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let Some(agent) = start(bed) else { return false };
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    assert_confined(&agent);

    // Connections are cut, and made again under the filter.
    cluster.broker_down(1).expect("down");
    bed.buy(UE);
    eventually("an attempt has failed", || {
        let attempts = |result| metric(&agent, "detector_delivery_attempts_total", &[result]);
        attempts("network") + attempts("timeout") + attempts("unavailable") > 0.0
    });
    cluster.broker_up(1).expect("up");
    let delivered = settled(&agent, "delivered", 2);
    assert_eq!(ids(&cluster, 2), delivered.into_iter().collect());
    assert_confined(&agent);
    true
}

#[test]
fn events_reach_the_topic_also_after_the_server_was_away() {
    need_root!();
    let bed = Bed::new();
    if !bed.dn.enter(|| inside(&bed)).expect("inside") {
        skip!("needs a detector with the feature kafka");
    }
}
