//! Applications: endpoints that belong to one application alone, sessions that can end.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    time::Duration,
};

use detector_common::packet::Protocol;
use ipnet::IpNet;

use crate::{
    rules::{
        field::protocol as protocol_word,
        model::{Application, Endpoint, SessionPolicy},
        raw::{ApplicationDocument, ApplicationSpec, EndpointSpec, ProtocolSpec, SessionSpec},
        scalar::PortRange,
    },
    yaml::{Field, Period, Place, Problem},
};

const DEFAULT_SESSION: SessionPolicy =
    SessionPolicy { idle: Duration::from_secs(30), linger: Duration::from_secs(2) };
/// Shorter and a pause between two packets would be an end.
const IDLE_LEAST: Duration = Duration::from_secs(1);
/// Longer and a session table would only ever shrink by eviction.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Who has which ports of which prefix; ranges of one prefix never overlap.
#[derive(Default)]
pub(super) struct Endpoints {
    claims: HashMap<(IpNet, Protocol), BTreeMap<u16, Claim>>,
}

struct Claim {
    last: u16,
    application: String,
    place: Place,
}

pub(super) fn check(
    document: &ApplicationDocument,
    endpoints: &mut Endpoints,
    problems: &mut Vec<Problem>,
) -> Option<Application> {
    let spec = document.spec.get()?;
    let name = document.metadata.name.get().map_or("", |name| &name.0);
    let list = all_endpoints(spec, name, endpoints, problems);
    let session = spec.session.as_ref().and_then(Field::get);
    let session = session.map_or(DEFAULT_SESSION, |session| policy(session, problems));
    (!name.is_empty() && !list.is_empty()).then(|| Application {
        name: name.to_owned(),
        endpoints: list,
        session,
    })
}

fn all_endpoints(
    spec: &ApplicationSpec,
    application: &str,
    endpoints: &mut Endpoints,
    problems: &mut Vec<Problem>,
) -> Vec<Endpoint> {
    let Some(list) = spec.endpoints.get() else { return Vec::new() };
    if list.is_empty() {
        problems.push(spec.endpoints.problem("is empty; expected at least one endpoint"));
    }
    let mut checked = Vec::new();
    for endpoint in list.iter().filter_map(Field::get) {
        checked.extend(one_endpoint(endpoint, application, endpoints, problems));
    }
    checked
}

/// One entry of the file; a model endpoint for each of its port ranges.
fn one_endpoint(
    spec: &EndpointSpec,
    application: &str,
    endpoints: &mut Endpoints,
    problems: &mut Vec<Problem>,
) -> Vec<Endpoint> {
    let Some(cidr) = spec.cidr.get() else { return Vec::new() };
    let protocol = match spec.protocol.as_ref().and_then(Field::get) {
        None | Some(ProtocolSpec::Tcp) => Protocol::Tcp,
        Some(ProtocolSpec::Udp) => Protocol::Udp,
    };
    let mut claim = |ports: &PortRange, problem: &dyn Fn(String) -> Problem| {
        let endpoint = Endpoint { prefix: cidr.0, ports: ports.0.clone(), protocol };
        endpoints.claim(&endpoint, application, problem).map(|()| endpoint)
    };
    let Some(ports) = &spec.ports else {
        let all = claim(&PortRange(1..=u16::MAX), &|message| spec.cidr.problem(message));
        return all.map_err(|problem| problems.push(problem)).into_iter().collect();
    };
    let Some(list) = ports.get() else { return Vec::new() };
    if list.is_empty() {
        let message = "is empty; expected at least one port, or leave it out for all ports";
        problems.push(ports.problem(message));
    }
    let mut checked = Vec::new();
    for (field, range) in list.iter().filter_map(|field| Some((field, field.get()?))) {
        match claim(range, &|message| field.problem(message)) {
            Ok(endpoint) => checked.push(endpoint),
            Err(problem) => problems.push(problem),
        }
    }
    checked
}

impl Endpoints {
    fn claim(
        &mut self,
        endpoint: &Endpoint,
        application: &str,
        problem: &dyn Fn(String) -> Problem,
    ) -> Result<(), Problem> {
        let claims = self.claims.entry((endpoint.prefix, endpoint.protocol)).or_default();
        let (first, last) = (*endpoint.ports.start(), *endpoint.ports.end());
        // Ranges that are there do not overlap, so the last to begin before our end is the one.
        if let Some((_, claim)) = claims.range(..=last).next_back()
            && claim.last >= first
        {
            let (protocol, prefix) = (protocol_word(endpoint.protocol), endpoint.prefix);
            let ports = show(&endpoint.ports);
            return Err(problem(if claim.application == application {
                format!("{prefix} {protocol} {ports} is listed twice, first at {}", claim.place)
            } else {
                format!(
                    "{prefix} {protocol} {ports} belongs to application \"{}\" already, at {}; \
                     expected an endpoint of one application only",
                    claim.application, claim.place
                )
            }));
        }
        let place = problem(String::new()).place;
        claims.insert(first, Claim { last, application: application.to_owned(), place });
        Ok(())
    }
}

fn show(ports: &RangeInclusive<u16>) -> String {
    match (*ports.start(), *ports.end()) {
        (1, u16::MAX) => "all ports".to_owned(),
        (first, last) if first == last => format!("port {first}"),
        (first, last) => format!("ports {first}-{last}"),
    }
}

fn policy(spec: &SessionSpec, problems: &mut Vec<Problem>) -> SessionPolicy {
    let mut period = |field: &Option<Field<Period>>, default, least| {
        let Some((field, period)) = field.as_ref().and_then(|f| Some((f, *f.get()?))) else {
            return default;
        };
        problems.extend(period.outside(least, LONGEST).map(|message| field.problem(message)));
        period.0
    };
    SessionPolicy {
        idle: period(&spec.idle, DEFAULT_SESSION.idle, IDLE_LEAST),
        linger: period(&spec.linger, DEFAULT_SESSION.linger, Duration::ZERO),
    }
}
