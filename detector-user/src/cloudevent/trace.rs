//! `traceparent`, by which an event can be followed from its packet to the function (W3C Trace Context;
//! CloudEvents "Distributed Tracing" extension).
//!
//! Everything in it is a function of the event's `id`: repeated deliveries, a restarted agent and a
//! replayed capture say the same, sampled or not included.

use std::fmt;

use cloudevents::{Event, event::ExtensionValue};
use uuid::Uuid;

/// The attribute's name, and the header's.
pub const TRACEPARENT: &str = "traceparent";

/// Which events are sampled: so many of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampler {
    /// Of 2^56.
    sampled: u64,
}

impl Sampler {
    /// Of all possible values of what is random in a trace id.
    const ALL: u64 = 1 << 56;

    /// 0.0 is none, 1.0 all.
    pub fn new(ratio: f64) -> Self {
        Self { sampled: (ratio.clamp(0.0, 1.0) * Self::ALL as f64) as u64 }
    }

    /// The last seven bytes decide, high ones first, so that what is sampled at a ratio is sampled at
    /// every higher one, by everybody who follows W3C Trace Context Level 2 (section 3.2.2.3.2).
    fn samples(self, trace: Uuid) -> bool {
        let random = trace.as_u128() as u64 & (Self::ALL - 1);
        random >= Self::ALL - self.sampled
    }
}

/// Where an event stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace: the event's `id`, if Detector made it.
    pub trace: Uuid,
    /// The span in it that everything further belongs to: the packet's.
    pub span: u64,
    /// Whether spans are recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Of a new event.
    pub(super) fn new(id: Uuid, sampler: Sampler) -> Self {
        let mut context = Self { trace: id, span: 0, sampled: sampler.samples(id) };
        context.span = context.span_for("packet", 0);
        context
    }

    /// Of an event that has one, W3C Trace Context section 3.2.2.
    pub fn of(event: &Event) -> Option<Self> {
        let Some(ExtensionValue::String(text)) = event.extension(TRACEPARENT) else { return None };
        Self::parse(text)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next()?;
            let small = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            (part.len() == digits && part.bytes().all(small)).then_some(part)
        };
        let version = hex(2)?;
        let trace = u128::from_str_radix(hex(32)?, 16).ok()?;
        let span = u64::from_str_radix(hex(16)?, 16).ok()?;
        let flags = u8::from_str_radix(hex(2)?, 16).ok()?;
        // Later versions may have more parts, this one must not.
        let whole = version != "ff" && (version != "00" || parts.next().is_none());
        (whole && trace != 0 && span != 0).then_some(Self {
            trace: Uuid::from_u128(trace),
            span,
            sampled: flags & 1 == 1,
        })
    }

    /// The id of a span in this trace, always the same for the same step.
    pub fn span_for(&self, step: &str, number: u64) -> u64 {
        let name = [step.as_bytes(), &self.span.to_be_bytes(), &number.to_be_bytes()].concat();
        let (high, _) = Uuid::new_v5(&self.trace, &name).as_u64_pair();
        // 0 is no span id.
        high.max(1)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, sampled } = self;
        write!(f, "00-{}-{span:016x}-{:02x}", trace.as_simple(), u8::from(*sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_be_bytes())
    }

    #[test]
    fn the_same_event_has_the_same_trace_and_the_trace_is_its_id() {
        let sampler = Sampler::new(0.5);
        let context = TraceContext::new(id(1), sampler);
        assert_eq!(context, TraceContext::new(id(1), sampler));
        assert_eq!(context.trace, id(1));
        assert_ne!(context.span, TraceContext::new(id(2), sampler).span);
        assert_ne!(context.span_for("POST", 0), context.span_for("POST", 1));
        assert_ne!(context.span_for("POST", 0), context.span_for("queue", 0));
    }

    #[test]
    fn so_many_are_sampled_as_are_asked_for_and_more_means_the_same_and_others() {
        let sampled = |ratio| -> Vec<u32> {
            let sampler = Sampler::new(ratio);
            (0..10_000).filter(|n| TraceContext::new(id(*n), sampler).sampled).collect()
        };
        let (few, half) = (sampled(0.1), sampled(0.5));
        assert!((900..1_100).contains(&few.len()), "{}", few.len());
        assert!((4_800..5_200).contains(&half.len()), "{}", half.len());
        assert!(few.iter().all(|n| half.contains(n)));
        assert_eq!((sampled(0.0).len(), sampled(1.0).len()), (0, 10_000));
    }

    #[test]
    fn what_is_written_can_be_read() {
        for ratio in [0.0, 1.0] {
            let context = TraceContext::new(id(3), Sampler::new(ratio));
            assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        }
        let w3c = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceContext::parse(w3c).unwrap().to_string(), w3c);
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
