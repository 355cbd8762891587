//! Trigger filters: `spec.filters` (the CloudEvents Subscriptions API dialects) and the older
//! `spec.filter.attributes`.
//!
//! A verdict has three values because Knative's has: an empty filter neither passes nor fails, so
//! `not: {}` lets events through instead of turning "everything" into "nothing".

use std::collections::BTreeMap;

use cloudevents::{AttributesReader, Event};
use serde::Deserialize;

/// What a filter says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It matches.
    Pass,
    /// It does not; the event is not for this Trigger.
    Fail,
    /// There was nothing to compare.
    Neutral,
}

/// One filter expression.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawFilter")]
pub enum Filter {
    /// `{}`.
    Empty,
    /// Every attribute has exactly this value.
    Exact(BTreeMap<String, String>),
    /// Every attribute begins with this.
    Prefix(BTreeMap<String, String>),
    /// Every attribute ends with this.
    Suffix(BTreeMap<String, String>),
    /// Not one of them fails.
    All(Vec<Filter>),
    /// At least one of them passes.
    Any(Vec<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// `spec.filter.attributes`: like `Exact`, and an empty value means "is there".
    Attributes(BTreeMap<String, String>),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawFilter {
    exact: BTreeMap<String, String>,
    prefix: BTreeMap<String, String>,
    suffix: BTreeMap<String, String>,
    all: Vec<Filter>,
    any: Vec<Filter>,
    not: Option<Box<Filter>>,
    cesql: String,
}

impl TryFrom<RawFilter> for Filter {
    type Error = String;

    fn try_from(raw: RawFilter) -> Result<Self, String> {
        if !raw.cesql.is_empty() {
            return Err("`cesql` is not supported by this local Broker (a cluster's is needed): \
                        use exact, prefix, suffix, all, any or not"
                .into());
        }
        let mut dialects = Vec::new();
        for (map, dialect) in [
            (raw.exact, Filter::Exact as fn(BTreeMap<String, String>) -> Filter),
            (raw.prefix, Filter::Prefix),
            (raw.suffix, Filter::Suffix),
        ] {
            for (name, value) in &map {
                attribute_name(name)?;
                if value.is_empty() {
                    return Err(format!("attribute `{name}` needs a value that is not empty"));
                }
            }
            dialects.extend((!map.is_empty()).then(|| dialect(map)));
        }
        dialects.extend((!raw.all.is_empty()).then_some(Filter::All(raw.all)));
        dialects.extend((!raw.any.is_empty()).then_some(Filter::Any(raw.any)));
        dialects.extend(raw.not.map(Filter::Not));
        if dialects.len() > 1 {
            return Err("one filter has one dialect: write each of exact, prefix, suffix, all, \
                        any, not as its own list item"
                .into());
        }
        Ok(dialects.pop().unwrap_or(Filter::Empty))
    }
}

/// The rule of Knative's webhook for names in filters.
pub(crate) fn attribute_name(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    if first && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not an attribute name: expected lower-case letters and digits, a letter first"
    ))
}

impl Filter {
    /// What a Trigger's filters amount to: `filters` wins over `filter` when both are there.
    pub fn of_trigger(filters: Vec<Filter>, attributes: BTreeMap<String, String>) -> Self {
        if !filters.is_empty() {
            Filter::All(filters)
        } else if !attributes.is_empty() {
            Filter::Attributes(attributes)
        } else {
            Filter::Empty
        }
    }

    /// Does the event go to this Trigger's subscriber?
    pub fn lets_through(&self, event: &Event) -> bool {
        self.judge(event) != Verdict::Fail
    }

    /// What this filter says of the event.
    pub fn judge(&self, event: &Event) -> Verdict {
        match self {
            Filter::Empty => Verdict::Neutral,
            Filter::Exact(map) => every(map, event, |value, wanted| value == wanted),
            Filter::Prefix(map) => every(map, event, |value, wanted| value.starts_with(wanted)),
            Filter::Suffix(map) => every(map, event, |value, wanted| value.ends_with(wanted)),
            Filter::Attributes(map) => every(map, event, |value, wanted| {
                if wanted.is_empty() { !value.is_empty() } else { value == wanted }
            }),
            Filter::All(filters) => first_or_last(filters, event, Verdict::Fail),
            Filter::Any(filters) => first_or_last(filters, event, Verdict::Pass),
            Filter::Not(filter) => match filter.judge(event) {
                Verdict::Pass => Verdict::Fail,
                Verdict::Fail => Verdict::Pass,
                Verdict::Neutral => Verdict::Neutral,
            },
        }
    }
}

fn every(
    map: &BTreeMap<String, String>,
    event: &Event,
    matches: impl Fn(&str, &str) -> bool,
) -> Verdict {
    let holds = |(name, wanted): (&String, &String)| {
        attribute(event, name).is_some_and(|value| matches(&value, wanted))
    };
    if map.iter().all(holds) { Verdict::Pass } else { Verdict::Fail }
}

/// The deciding verdict if one filter gives it, else what the last one said; empty ones are
/// skipped, as Knative skips them.
fn first_or_last(filters: &[Filter], event: &Event, deciding: Verdict) -> Verdict {
    let mut last = Verdict::Neutral;
    for filter in filters.iter().filter(|filter| **filter != Filter::Empty) {
        last = filter.judge(event);
        if last == deciding {
            return deciding;
        }
    }
    last
}

/// An attribute's or extension's value as text.
fn attribute(event: &Event, name: &str) -> Option<String> {
    match name {
        "specversion" => Some(event.specversion().as_str().into()),
        "id" => Some(event.id().into()),
        "type" => Some(event.ty().into()),
        "source" => Some(event.source().clone()),
        "subject" => event.subject().map(Into::into),
        "datacontenttype" => event.datacontenttype().map(Into::into),
        "dataschema" => event.dataschema().map(ToString::to_string),
        "time" => {
            event.time().map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
        }
        extension => event.extension(extension).map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use cloudevents::{EventBuilder, EventBuilderV10};
    use proptest::prelude::*;

    use super::*;

    fn event() -> Event {
        EventBuilderV10::new()
            .id("1")
            .source("/mec/site-a/node-1/n6")
            .ty("com.example.arshop.buy.clicked")
            .subject("10.45.0.2")
            .extension("application", "ar-shop")
            .extension("attempt", 3)
            .build()
            .expect("complete")
    }

    fn filters(yaml: &str) -> Filter {
        let list: Vec<Filter> = serde_saphyr::from_str(yaml).expect(yaml);
        Filter::of_trigger(list, BTreeMap::new())
    }

    fn passes(yaml: &str) -> bool {
        filters(yaml).lets_through(&event())
    }

    #[test]
    fn each_dialect_passes_what_it_names_and_fails_the_rest() {
        assert!(passes("[{exact: {type: com.example.arshop.buy.clicked}}]"));
        assert!(!passes("[{exact: {type: com.example.arshop.buy}}]"));
        assert!(passes("[{prefix: {type: com.example.}}]"));
        assert!(!passes("[{prefix: {type: org.example.}}]"));
        assert!(passes("[{suffix: {source: /n6}}]"));
        assert!(!passes("[{suffix: {source: /n3}}]"));
        assert!(passes("[{exact: {attempt: '3'}}]"), "integers compare as text");
        assert!(!passes("[{exact: {dnn: internet}}]"), "a missing attribute fails");
        assert!(passes("[{not: {exact: {dnn: internet}}}]"));
    }

    #[test]
    fn several_keys_and_several_filters_are_anded() {
        assert!(passes("[{exact: {application: ar-shop, subject: 10.45.0.2}}]"));
        assert!(!passes("[{exact: {application: ar-shop, subject: 10.45.0.3}}]"));
        assert!(!passes("[{exact: {application: ar-shop}}, {prefix: {type: org.}}]"));
    }

    #[test]
    fn all_any_and_not_nest() {
        let yaml = "
- any:
  - exact: {type: other}
  - all:
    - prefix: {type: com.example.arshop.}
    - not: {suffix: {type: .started}}
";
        assert!(passes(yaml));
        assert!(!passes("[{any: [{exact: {type: a}}, {exact: {type: b}}]}]"));
    }

    #[test]
    fn an_empty_filter_lets_everything_through_also_inside_not() {
        assert!(passes("[]"));
        assert!(passes("[{}]"));
        assert!(passes("[{not: {}}]"));
    }

    #[test]
    fn filters_wins_over_filter_attributes() {
        let list: Vec<Filter> = serde_saphyr::from_str("[{prefix: {type: com.}}]").unwrap();
        let attributes = BTreeMap::from([("type".to_owned(), "never".to_owned())]);
        assert!(Filter::of_trigger(list, attributes.clone()).lets_through(&event()));
        assert!(!Filter::of_trigger(vec![], attributes).lets_through(&event()));
    }

    #[test]
    fn an_empty_value_in_filter_attributes_asks_only_whether_it_is_there() {
        let ask = |name: &str| {
            Filter::of_trigger(vec![], BTreeMap::from([(name.to_owned(), String::new())]))
                .lets_through(&event())
        };
        assert!(ask("application"));
        assert!(!ask("dnn"));
        assert!(!ask("dataschema"));
    }

    #[test]
    fn what_a_cluster_would_refuse_is_refused_with_the_reason() {
        for (yaml, reason) in [
            ("[{cesql: \"type = 'a'\"}]", "cesql"),
            ("[{exact: {type: a}, prefix: {type: a}}]", "one dialect"),
            ("[{exact: {Type: a}}]", "not an attribute name"),
            ("[{exact: {ue_ip: a}}]", "not an attribute name"),
            ("[{exact: {type: ''}}]", "not empty"),
            ("[{regex: {type: a}}]", "unknown field"),
        ] {
            let error = serde_saphyr::from_str::<Vec<Filter>>(yaml).unwrap_err().to_string();
            assert!(error.contains(reason), "{yaml}: {error}");
        }
    }

    fn leaf() -> impl Strategy<Value = Filter> {
        let map = ("(type|subject|dnn)", "(com|10|x)[.a-z0-9]{0,3}")
            .prop_map(|(name, value)| BTreeMap::from([(name, value)]));
        prop_oneof![
            map.clone().prop_map(Filter::Exact),
            map.clone().prop_map(Filter::Prefix),
            map.prop_map(Filter::Suffix),
        ]
    }

    proptest! {
        #[test]
        fn not_reverses_and_de_morgan_holds(a in leaf(), b in leaf()) {
            let event = event();
            let not = |filter: &Filter| Filter::Not(Box::new(filter.clone()));
            prop_assert_ne!(a.judge(&event), not(&a).judge(&event));
            prop_assert_eq!(
                not(&Filter::All(vec![a.clone(), b.clone()])).judge(&event),
                Filter::Any(vec![not(&a), not(&b)]).judge(&event),
            );
        }

        #[test]
        fn exact_implies_prefix_and_suffix(value in "[a-z.]{1,12}") {
            let event = EventBuilderV10::new().id("1").source("/s").ty(value.clone()).build().unwrap();
            let map = BTreeMap::from([("type".to_owned(), value)]);
            for filter in [Filter::Exact(map.clone()), Filter::Prefix(map.clone()), Filter::Suffix(map)] {
                prop_assert_eq!(filter.judge(&event), Verdict::Pass);
            }
        }
    }
}
