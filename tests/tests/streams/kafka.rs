//! Against librdkafka's mock cluster, which speaks the protocol over sockets.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cloudevents::{AttributesReader, Event, binding::rdkafka::MessageExt};
use detector_user::deliver::Target;
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use crate::bed::{self, Bed, PATIENCE, USERS};

const TOPIC: &str = "pressed";
const ATTEMPT: Duration = Duration::from_secs(2);
const PARTITIONS: i32 = 3;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Result<Cluster> {
    let cluster = MockCluster::new(1)?;
    cluster.create_topic(TOPIC, PARTITIONS, 1)?;
    Ok(cluster)
}

fn target(cluster: &Cluster) -> Result<Target> {
    Ok(format!("kafka://{}/{TOPIC}", cluster.bootstrap_servers()).parse()?)
}

/// So many events of the topic, as the SDK reads them; those of one user are in one partition.
fn events(cluster: &Cluster, count: usize) -> Result<Vec<Event>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[TOPIC])?;
    let (mut events, begin) = (Vec::new(), Instant::now());
    let mut partitions = std::collections::BTreeMap::new();
    while events.len() < count {
        ensure!(begin.elapsed() < PATIENCE, "{} of {count} events", events.len());
        let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
        let message = message?;
        let key = String::from_utf8(message.key().context("no key")?.to_vec())?;
        let event = message.to_event()?;
        assert_eq!(event.extension("partitionkey").map(ToString::to_string), Some(key.clone()));
        let partition = *partitions.entry(key).or_insert(message.partition());
        assert_eq!(partition, message.partition(), "{}", event.id());
        events.push(event);
    }
    Ok(events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_in_the_topic_and_a_users_in_one_partition_in_order() -> Result<()> {
    let cluster = cluster()?;
    let mut bed = Bed::start(&target(&cluster)?, ATTEMPT, None)?;
    bed.send_numbers(0..100).await?;
    bed.all_delivered(100 * USERS).await?;
    assert_eq!(bed::numbers(&events(&cluster, 100 * USERS)?)?, bed::in_order(100));
    assert_eq!(bed.books()?, (100 * USERS as u64, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_does_not_answer_events_wait_and_keep_their_order() -> Result<()> {
    let cluster = cluster()?;
    let mut bed = Bed::start(&target(&cluster)?, ATTEMPT, None)?;
    bed.send_numbers(0..10).await?;
    bed.all_delivered(USERS).await?;
    // Its connections are cut, then it takes longer than an attempt may.
    cluster
        .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT; 3]);
    cluster.broker_round_trip_time(1, 10 * ATTEMPT)?;
    bed.send_numbers(10..20).await?;
    bed.until_given_up()?;
    cluster.broker_round_trip_time(1, Duration::ZERO)?;
    bed.all_delivered(19 * USERS).await?;
    let numbers = bed::numbers(&events(&cluster, 20 * USERS)?)?;
    assert_eq!(bed::without_repeats(numbers), bed::in_order(20));
    assert_eq!(bed.books()?, (20 * USERS as u64, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_does_not_take_is_a_dead_letter_and_holds_up_nobody() -> Result<()> {
    let cluster = cluster()?;
    let directory = tempfile::tempdir()?;
    let letters = directory.path().join("letters.jsonl");
    let mut bed = Bed::start(&target(&cluster)?, ATTEMPT, Some(&letters))?;
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large]);
    bed.send(bed::event(0, 1_000, 10)?).await;
    let (id, outcome, reason) = bed.outcome().await?;
    assert_eq!((id.as_str(), outcome), ("0-1000", "rejected"), "{reason}");
    bed.send_numbers(0..2).await?;
    bed.all_delivered(2 * USERS).await?;
    assert_eq!(bed.books()?, (2 * USERS as u64, 1));
    assert_eq!(std::fs::read_to_string(&letters)?.lines().count(), 1);
    Ok(())
}
