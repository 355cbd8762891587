//! One event's spans, from its packet to the Broker's answer.

use std::time::SystemTime;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message as _;
use testbed::{
    need_root,
    receiver::{Receiver, Reply},
    skip, wait,
};

use crate::{
    bed::{Bed, LIMIT, SINK, UE, config_with, settled},
    start,
};

const COLLECTOR: &str = "127.0.0.1:4318";

fn spans(collector: &Receiver) -> Vec<Span> {
    let requests = collector.recorded().into_iter().map(|request| {
        assert_eq!(request.path, "/v1/traces");
        ExportTraceServiceRequest::decode(request.body).expect("OTLP")
    });
    let resources = requests.flat_map(|request| request.resource_spans);
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_nanos()).expect("before 2554")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_event_s_spans_follow_it_from_the_packet_over_a_refusal_to_the_broker_s_202() {
    need_root!();
    let bed = Bed::new();
    let rest = format!(
        "sink: {{url: 'http://{SINK}/'}}
  tracing: {{sampleRatio: 1.0, otlp: 'http://{COLLECTOR}/v1/traces'}}"
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let receiver = bed.receiver();
    receiver.answer_next([Reply::status(503)]);
    let collector = bed.dn.listen(COLLECTOR.parse().expect("address")).expect("its port");
    let collector = Receiver::start(collector).expect("collector");
    collector.answer(Reply::status(200));
    let Some(agent) = start(&bed) else { skip!("needs a detector with the feature otlp") };
    let before = now_ns();
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    let after = now_ns();
    wait::until("the last attempt's span", LIMIT, || {
        Ok((spans(&collector).iter().filter(|span| span.name == "POST").count() == 2).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", agent.tail()));

    let event = receiver.recorded().pop().expect("the event");
    let traceparent = event.header("ce-traceparent");
    let [version, trace, parent, flags] = traceparent.split('-').collect::<Vec<_>>()[..] else {
        panic!("no traceparent: {traceparent:?}")
    };
    assert_eq!((version, flags), ("00", "01"));
    assert_eq!(event.header("traceparent"), traceparent, "the request is in the same trace");
    let mut spans = spans(&collector);
    spans.sort_by_key(|span| (span.start_time_unix_nano, span.name != "packet"));
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["packet", "ring", "confirm", "queue", "POST", "queue", "POST"]);
    for span in &spans {
        assert_eq!(hex(&span.trace_id), trace, "{}", span.name);
        let (begin, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
        assert!(before <= begin && begin <= end && end <= after, "{}: {before} {after}", span.name);
    }
    let (packet, below) = spans.split_first().expect("seven");
    assert_eq!((hex(&packet.span_id).as_str(), packet.parent_span_id.len()), (parent, 0));
    assert!(below.iter().all(|span| span.parent_span_id == packet.span_id));
    // Each begins where the one before it ends, but for what lies between making and queueing.
    for pair in below.windows(2) {
        assert!(
            pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano,
            "{} ends after {} begins",
            pair[0].name,
            pair[1].name
        );
    }
    assert_eq!(packet.start_time_unix_nano, below[0].start_time_unix_nano);
    assert_eq!(packet.end_time_unix_nano, below[1].end_time_unix_nano);
    let failed =
        |span: &Span| span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
    assert_eq!([failed(&below[3]), failed(&below[5])], [true, false]);
}
