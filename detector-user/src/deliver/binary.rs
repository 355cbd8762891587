//! An event in the binary content mode of the CloudEvents HTTP binding: attributes as headers.
//!
//! The SDK's own serializer leaves out the percent-encoding, and copies the whole event and its
//! request for each attribute: a third of what a POST costs.

use bytes::{Bytes, BytesMut};
use cloudevents::{
    Data, Event,
    event::{AttributeValue, SpecVersion},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::{Failure, sink::unsendable};
use crate::cloudevent::{TRACEPARENT, TraceContext};

/// What must be percent-encoded in a header value, besides all that is not ASCII (CloudEvents
/// HTTP binding 1.0, section 3.1.3.2).
const HEADER_VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// Ingress does not default it.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
/// Room for the values of all attributes, as a rule.
const VALUES: usize = 512;
const HEADERS: usize = 24;

/// All headers that say something of the event.
pub(super) fn headers(event: &Event) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    // One allocation for all values.
    let mut buffer = BytesMut::with_capacity(VALUES);
    headers.insert(CONTENT_TYPE, JSON);
    for (name, value) in event.iter() {
        let (name, value) = match (name, &value) {
            // No CloudEvents string but HTTP's own header: it stays as it is (section 3.1.1).
            ("datacontenttype", _) => {
                (CONTENT_TYPE, HeaderValue::try_from(value.to_string()).map_err(unsendable)?)
            }
            ("specversion", AttributeValue::SpecVersion(SpecVersion::V10)) => {
                (SPEC_VERSION, HeaderValue::from_static("1.0"))
            }
            _ => {
                let escaped = escaped(&value, &mut buffer);
                let escaped = HeaderValue::from_maybe_shared(escaped).map_err(unsendable)?;
                (header_name(name)?, escaped)
            }
        };
        headers.insert(name, value);
    }
    if let Some(context) = TraceContext::of(event).filter(|context| context.sampled) {
        // Whoever follows W3C Trace Context and knows nothing of CloudEvents joins the trace.
        let value = HeaderValue::try_from(context.to_string()).map_err(unsendable)?;
        headers.insert(HeaderName::from_static(TRACEPARENT), value);
    }
    Ok(headers)
}

/// The body.
pub(super) fn body(event: &Event) -> Result<Vec<u8>, Failure> {
    match event.data() {
        Some(Data::Json(value)) => serde_json::to_vec(value).map_err(unsendable),
        Some(Data::String(text)) => Ok(text.clone().into_bytes()),
        Some(Data::Binary(bytes)) => Ok(bytes.clone()),
        None => Ok(Vec::new()),
    }
}

fn header_name(attribute: &str) -> Result<HeaderName, Failure> {
    Ok(match attribute {
        "specversion" => SPEC_VERSION,
        "id" => HeaderName::from_static("ce-id"),
        "source" => HeaderName::from_static("ce-source"),
        "type" => HeaderName::from_static("ce-type"),
        "subject" => HeaderName::from_static("ce-subject"),
        "time" => HeaderName::from_static("ce-time"),
        "partitionkey" => HeaderName::from_static("ce-partitionkey"),
        "traceparent" => HeaderName::from_static("ce-traceparent"),
        "ueip" => HeaderName::from_static("ce-ueip"),
        "application" => HeaderName::from_static("ce-application"),
        "rule" => HeaderName::from_static("ce-rule"),
        "direction" => HeaderName::from_static("ce-direction"),
        "sessionid" => HeaderName::from_static("ce-sessionid"),
        other => HeaderName::try_from(format!("ce-{other}")).map_err(unsendable)?,
    })
}

fn escaped(value: &AttributeValue<'_>, buffer: &mut BytesMut) -> Bytes {
    match value {
        AttributeValue::String(text) => escape(text, buffer),
        AttributeValue::URIRef(uri) => escape(uri.as_str(), buffer),
        AttributeValue::URI(uri) => escape(uri.as_str(), buffer),
        AttributeValue::SpecVersion(_)
        | AttributeValue::Time(_)
        | AttributeValue::Boolean(_)
        | AttributeValue::Integer(_)
        | AttributeValue::Binary(_) => escape(&value.to_string(), buffer),
    }
}

fn escape(text: &str, buffer: &mut BytesMut) -> Bytes {
    // As nearly all are.
    let plain = |byte: u8| matches!(byte, b'!'..=b'~') && byte != b'"' && byte != b'%';
    if text.bytes().all(plain) {
        buffer.extend_from_slice(text.as_bytes());
        return buffer.split().freeze();
    }
    for part in utf8_percent_encode(text, HEADER_VALUE) {
        buffer.extend_from_slice(part.as_bytes());
    }
    buffer.split().freeze()
}
