//! Raw config -> checked config: defaults, ranges, what the environment overrides.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Admin, Config, DeadLettersConfig, Delivery, Limits, SpoolConfig, Tracing, UePool,
    environment::{self, Environment},
    raw::{
        ConfigDocument, ConfigSpec, DeadLettersSpec, DeliverySpec, LimitsSpec, NodeName, PinSpec,
        SpoolSpec,
    },
    sinks,
};
use crate::{
    attach::DeviceWish,
    cloudevent::Sampler,
    pin::DEFAULT_PATH,
    yaml::{ByteSize, Field, Period, Problem, Scalar},
};

/// `None` only if something was refused.
pub(super) fn check(
    document: &ConfigDocument,
    directory: &Path,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let spec = document.spec.get()?;
    let site = spec.site.as_ref().and_then(Field::get);
    Some(Config {
        site: site.map_or("edge", |site| &site.0).to_owned(),
        node: node(spec, environment, problems),
        devices: devices(spec, problems),
        ue_pools: ue_pools(spec, problems),
        rules: rules(spec, directory, problems),
        sinks: sinks::sinks(spec, directory, environment, problems),
        ce_overrides: environment::ce_overrides(environment, problems),
        delivery: delivery(spec.delivery.as_ref().and_then(Field::get), directory, problems),
        admin: admin(spec, directory),
        tracing: tracing(spec, problems),
        limits: limits(spec.limits.as_ref().and_then(Field::get), problems),
        pin: spec.pin.as_ref().and_then(|field| pin(field, problems)),
    })
}

/// DETECTOR_NODE, then NODE_NAME (a DaemonSet's downward API), then the config, then the host.
fn node(spec: &ConfigSpec, environment: &Environment, problems: &mut Vec<Problem>) -> String {
    for variable in ["DETECTOR_NODE", "NODE_NAME"] {
        let Some(text) = environment.get(variable) else { continue };
        return match NodeName::parse(text) {
            Ok(name) => name.0,
            Err(message) => {
                problems.push(environment::problem(variable, message));
                String::new()
            }
        };
    }
    if let Some(field) = &spec.node {
        return field.get().map(|name| name.0.clone()).unwrap_or_default();
    }
    let hostname = environment.hostname.as_deref().map(NodeName::parse);
    match hostname {
        Some(Ok(name)) => name.0,
        Some(Err(_)) | None => {
            problems.push(environment::problem(
                "hostname",
                "this host has no usable name; set spec.node in the config, or DETECTOR_NODE"
                    .to_owned(),
            ));
            String::new()
        }
    }
}

/// The list's good items; an empty list is a problem.
pub(super) fn items<'d, T>(
    field: &'d Field<Vec<Field<T>>>,
    what: &str,
    problems: &mut Vec<Problem>,
) -> Vec<&'d T> {
    let Some(list) = field.get() else { return Vec::new() };
    if list.is_empty() {
        problems.push(field.problem(format!("is empty; expected at least one {what}")));
    }
    list.iter().filter_map(Field::get).collect()
}

fn devices(spec: &ConfigSpec, problems: &mut Vec<Problem>) -> Vec<DeviceWish> {
    let mut seen = BTreeSet::new();
    let mut devices = Vec::new();
    for device in items(&spec.devices, "device", problems) {
        let Some(pattern) = device.name.get() else { continue };
        if !seen.insert(pattern.as_str()) {
            problems.push(device.name.problem(format!("\"{pattern}\" is listed twice")));
        }
        devices.push(DeviceWish {
            pattern: pattern.clone(),
            hook: device.hook.as_ref().and_then(Field::get).copied().unwrap_or_default(),
            directions: device
                .directions
                .as_ref()
                .and_then(Field::get)
                .copied()
                .unwrap_or_default(),
        });
    }
    devices
}

fn ue_pools(spec: &ConfigSpec, problems: &mut Vec<Problem>) -> Vec<UePool> {
    let (mut names, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
    let mut pools = Vec::new();
    for pool in items(&spec.ue_pools, "pool of users' addresses", problems) {
        let Some((name, cidr)) = pool.name.get().zip(pool.cidr.get()) else { continue };
        if !names.insert(name) {
            problems.push(pool.name.problem(format!("\"{}\" is listed twice", name.0)));
        }
        if !prefixes.insert(cidr.0) {
            problems.push(pool.cidr.problem(format!("{} is listed twice", cidr.0)));
        }
        pools.push(UePool { name: name.0.clone(), cidr: cidr.0 });
    }
    pools
}

fn rules(spec: &ConfigSpec, directory: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let paths = items(&spec.rules, "rules file or directory", problems);
    paths.into_iter().map(|path| directory.join(path)).collect()
}

fn admin(spec: &ConfigSpec, directory: &Path) -> Admin {
    let default = Admin::default();
    let Some(spec) = spec.admin.as_ref().and_then(Field::get) else { return default };
    Admin {
        listen: there(&spec.listen).map_or(default.listen, |(_, listen)| listen.0),
        socket: there(&spec.socket).map(|(_, path)| directory.join(path)),
    }
}

/// Where a package or a container has room for it.
const SPOOL: &str = "/var/lib/detector/spool";
const DEAD_LETTERS: u64 = 16 << 20;

fn delivery(
    spec: Option<&DeliverySpec>,
    directory: &Path,
    problems: &mut Vec<Problem>,
) -> Delivery {
    let default = Delivery::default();
    let Some(spec) = spec else { return default };
    let (ms, day) = (Duration::from_millis(1), Duration::from_secs(86_400));
    let mut checker = Checker { problems };
    let spool = spec.spool.as_ref().and_then(Field::get);
    let spool = spool.map(|spec| self::spool(spec, directory, &mut checker));
    let dead_letters = spec.dead_letters.as_ref().and_then(Field::get);
    let dead_letters = dead_letters.and_then(|spec| dead_letters_at(spec, directory, &mut checker));
    let beside = || {
        let directory = spool.as_ref()?.directory.join("dead-letters");
        Some(DeadLettersConfig { directory, max_bytes: DEAD_LETTERS })
    };
    Delivery {
        timeout: checker.period(&spec.timeout, default.timeout, ms, day),
        retries: checker.number(&spec.retries, default.retries, 0, 100),
        backoff: checker.period(&spec.backoff, default.backoff, ms, day),
        concurrency: checker.number(&spec.concurrency, default.concurrency, 1, 1_024),
        queue: checker.number(&spec.queue, default.queue, 1, 1 << 20),
        budget: checker.period(&spec.budget, default.budget, ms, 30 * day),
        dead_letters: dead_letters.or_else(beside),
        spool,
    }
}

fn tracing(spec: &ConfigSpec, problems: &mut Vec<Problem>) -> Tracing {
    let Some(spec) = spec.tracing.as_ref().and_then(Field::get) else { return Tracing::default() };
    if let Some(otlp) = &spec.otlp
        && !cfg!(feature = "otlp")
    {
        problems.push(otlp.problem("needs a detector that was built with the feature \"otlp\""));
    }
    Tracing {
        sampler: Sampler::new(spec.sample_ratio.get().map_or(0.0, |ratio| ratio.0)),
        otlp: there(&spec.otlp).map(|(_, url)| url.0.clone()),
    }
}

fn pin(field: &Field<PinSpec>, problems: &mut Vec<Problem>) -> Option<PathBuf> {
    let Some(written) = field.get()?.path.as_ref() else { return Some(DEFAULT_PATH.into()) };
    let path = PathBuf::from(written.get()?);
    if !path.is_absolute() {
        problems.push(written.problem(format!(
            "\"{}\" is no absolute path; expected a directory on a BPF file system, e.g. \
             {DEFAULT_PATH}",
            path.display()
        )));
    }
    Some(path)
}

fn spool(spec: &SpoolSpec, directory: &Path, checker: &mut Checker<'_>) -> SpoolConfig {
    let default = crate::spool::Limits::default();
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
    let least = crate::spool::Limits::LEAST_BYTES;
    let path = spec.directory.as_ref().and_then(Field::get).map_or(SPOOL, String::as_str);
    SpoolConfig {
        directory: directory.join(path),
        limits: crate::spool::Limits {
            max_bytes: checker.bytes(&spec.max_size, default.max_bytes, least, 1 << 36),
            max_age: checker.period(&spec.max_age, default.max_age, second, 365 * day),
            fsync: there(&spec.fsync).map_or(default.fsync, |(_, fsync)| fsync.0),
            when_full: there(&spec.when_full).map_or(default.when_full, |(_, full)| *full),
        },
    }
}

fn dead_letters_at(
    spec: &DeadLettersSpec,
    directory: &Path,
    checker: &mut Checker<'_>,
) -> Option<DeadLettersConfig> {
    let max_bytes = checker.bytes(&spec.max_size, DEAD_LETTERS, 64 << 10, 1 << 36);
    Some(DeadLettersConfig { directory: directory.join(spec.directory.get()?), max_bytes })
}

/// What the agent holds when it has nothing to do, and a little more.
const LEAST_MEMORY: u64 = 32 << 20;

fn limits(spec: Option<&LimitsSpec>, problems: &mut Vec<Problem>) -> Limits {
    let default = Limits::default();
    let Some(spec) = spec else { return default };
    let mut checker = Checker { problems };
    Limits {
        cpu: there(&spec.cpu).map(|(_, cores)| cores.0),
        memory: there(&spec.memory)
            .map(|_| checker.bytes(&spec.memory, LEAST_MEMORY, LEAST_MEMORY, 1 << 40)),
        sessions: checker.number(&spec.sessions, default.sessions, 1, 1 << 22),
        flows: checker.number(&spec.flows, default.flows, 1, 1 << 22),
        ring_bytes: checker.ring(&spec.ring_bytes, default.ring_bytes),
    }
}

pub(super) struct Checker<'a> {
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    pub(super) fn period(
        &mut self,
        field: &Option<Field<Period>>,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        let Some((field, period)) = there(field) else { return default };
        self.problems.extend(period.outside(least, most).map(|message| field.problem(message)));
        period.0
    }

    pub(super) fn bytes(
        &mut self,
        field: &Option<Field<ByteSize>>,
        default: u64,
        least: u64,
        most: u64,
    ) -> u64 {
        let Some((field, &ByteSize(bytes))) = there(field) else { return default };
        if !(least..=most).contains(&bytes) {
            let message = format!("{bytes} bytes are out of range; expected {least} to {most}");
            self.problems.push(field.problem(message));
        }
        bytes
    }

    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        field: &Option<Field<u64>>,
        default: T,
        least: u64,
        most: u64,
    ) -> T {
        let Some((field, &number)) = there(field) else { return default };
        if (least..=most).contains(&number)
            && let Ok(number) = T::try_from(number)
        {
            return number;
        }
        let message = format!("{number} is out of range; expected {least} to {most}");
        self.problems.push(field.problem(message));
        default
    }

    /// The kernel takes a power of two of whole pages (`ringbuf_map_alloc`).
    fn ring(&mut self, field: &Option<Field<ByteSize>>, default: u32) -> u32 {
        const LEAST: u32 = 4 << 10;
        const MOST: u32 = 1 << 30;
        let Some((field, &ByteSize(bytes))) = there(field) else { return default };
        match u32::try_from(bytes) {
            Ok(bytes) if bytes.is_power_of_two() && (LEAST..=MOST).contains(&bytes) => bytes,
            Ok(_) | Err(_) => {
                let near = bytes.clamp(LEAST.into(), MOST.into()).next_power_of_two();
                self.problems.push(field.problem(format!(
                    "{bytes} bytes cannot be the ring's size; expected a power of two from 4Ki to \
                     1Gi; did you mean {near}?"
                )));
                default
            }
        }
    }
}

fn there<T>(field: &Option<Field<T>>) -> Option<(&Field<T>, &T)> {
    field.as_ref().and_then(|field| Some((field, field.get()?)))
}
