//! Sinks that keep events as a stream: NATS JetStream against a real server, Kafka against the mock of
//! librdkafka's own tests and against a broker of others, tansu.

mod bed;
mod kafka;
mod nats;
mod nats_login;
mod tansu;
