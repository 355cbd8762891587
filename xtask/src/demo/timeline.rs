//! What is seen of the play, put together by event id and printed as it comes:
//! UE action -> packet at N6 -> detection -> function -> Broker's 202.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant, SystemTime},
};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::{
    event::{Call, Event},
    play::Expected,
};

const DIM: Style = Style::new().dimmed();
const USER: Style = AnsiColor::Cyan.on_default();
const EVENT: Style = AnsiColor::Green.on_default();
const WRONG: Style = AnsiColor::Red.on_default().bold();

/// Which program a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Agent,
    Broker,
    Function,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Broker => "broker",
            Self::Function => "function",
        }
    }
}

/// Something a user does.
#[derive(Clone, Debug)]
pub(super) struct Action {
    pub(super) ue: String,
    pub(super) what: String,
    /// The rules it fires.
    pub(super) fires: Vec<&'static str>,
    pub(super) at: SystemTime,
}

/// One thing that was seen.
pub(super) enum Seen {
    Action(Action),
    /// A line of a program's JSON output.
    Line(Source, Value),
    /// A line for people.
    Said(Source, String),
}

/// Everything seen so far.
pub(super) struct Timeline {
    sees: Receiver<Seen>,
    begun: SystemTime,
    /// Actions whose event has not been seen yet, by rule and user.
    waiting: HashMap<(String, String), VecDeque<SystemTime>>,
    pub(super) events: BTreeMap<String, Event>,
    /// Attempts of the Broker that failed.
    pub(super) failed_attempts: usize,
}

impl Timeline {
    /// Begins now.
    pub(super) fn begin(sees: Receiver<Seen>) -> Self {
        let mut timeline = Self {
            sees,
            begun: SystemTime::now(),
            waiting: HashMap::new(),
            events: BTreeMap::new(),
            failed_attempts: 0,
        };
        // What the programs said on starting: which direction each hook sees, and so on.
        timeline.follow(Duration::ZERO);
        timeline.begun = SystemTime::now();
        anstream::println!();
        timeline
    }

    /// Takes in and prints what comes within this time.
    pub(super) fn follow(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            match self.sees.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(seen) => self.take(seen),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(until.saturating_duration_since(Instant::now()));
                    break;
                }
            }
        }
        self.print_complete();
    }

    /// Whether everything expected came all the way.
    pub(super) fn has_all(&self, expected: &[Expected]) -> bool {
        let complete = self.events.values().filter(|event| event.status.is_some());
        let calls: usize = self.events.values().map(|event| event.calls.len()).sum();
        complete.count() >= expected.len()
            && calls >= expected.iter().filter(|event| event.to_function).count()
    }

    fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Action(action) => self.acted(action),
            Seen::Said(source, line) => {
                anstream::println!("{DIM}{:>9} | {line}{DIM:#}", source.name());
            }
            Seen::Line(Source::Agent, line) => self.agent(&line),
            Seen::Line(Source::Broker, line) => self.broker(&line),
            Seen::Line(Source::Function, line) => self.function(&line),
        }
    }

    fn acted(&mut self, action: Action) {
        let Action { ue, what, fires, at } = action;
        anstream::println!("{} {USER}{ue:<18}{USER:#} {what}", self.clock(at));
        for rule in fires {
            self.waiting.entry((rule.to_owned(), ue.clone())).or_default().push_back(at);
        }
    }

    fn agent(&mut self, line: &Value) {
        let id = text(line, "event_id");
        match line["kind"].as_str() {
            Some("detection") => {
                let (rule, ue) = (text(line, "rule"), text(line, "ue"));
                let waiting = self.waiting.get_mut(&(rule.clone(), ue.clone()));
                let acted = waiting.and_then(VecDeque::pop_front);
                let event = self.events.entry(id.clone()).or_default();
                (event.rule, event.ue, event.acted) = (rule, ue, acted);
                event.packet = time(line, "packet_time");
                event.detected = time(line, "detected_at");
            }
            Some("delivered") => {
                let event = self.events.entry(id.clone()).or_default();
                event.status = line["status"].as_u64();
                event.accepted = time(line, "at");
                event.answered = Some(Instant::now());
            }
            _ => anstream::println!("{DIM}    agent | {line}{DIM:#}"),
        }
    }

    fn broker(&mut self, line: &Value) {
        if line["leg"] == "subscriber" {
            let event = self.events.entry(text(line, "event")).or_default();
            // The function's reply has the same id and goes to the Trigger for orders.
            event.trigger.get_or_insert_with(|| text(line, "trigger"));
        }
        if line.get("error").is_some() {
            self.failed_attempts += 1;
            anstream::println!("{WRONG}   broker | {line}{WRONG:#}");
        }
    }

    fn function(&mut self, line: &Value) {
        let call = Call {
            event_type: text(line, "type"),
            ue: text(&line["extensions"], "ueip"),
            at: time(line, "time"),
        };
        self.events.entry(text(line, "id")).or_default().calls.push(call);
    }

    /// Prints events that have come all the way.
    fn print_complete(&mut self) {
        let mut complete: Vec<String> = self
            .events
            .iter_mut()
            .filter(|(_, event)| event.is_complete(Instant::now()))
            .map(|(id, event)| {
                event.printed = true;
                id.clone()
            })
            .collect();
        complete.sort_by_key(|id| self.events[id].accepted);
        for id in complete {
            let event = &self.events[&id];
            let clock = self.clock(event.accepted.unwrap_or_else(SystemTime::now));
            let Event { ue, rule, .. } = event;
            let short: String = id.chars().take(8).collect();
            let trigger = event.trigger.as_deref().unwrap_or("no Trigger wants it");
            let (hops, total) = event.hops();
            anstream::println!(
                "{clock} {USER}{ue:<18}{USER:#} {EVENT}└ {rule} {short} ({trigger}){EVENT:#}: {hops} \
                 {DIM}= {total}{DIM:#}"
            );
        }
    }

    fn clock(&self, at: SystemTime) -> String {
        let elapsed = at.duration_since(self.begun).unwrap_or_default();
        format!("{DIM}{:7.3} s{DIM:#}", elapsed.as_secs_f64())
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value, field: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(value[field].as_str()?).ok()
}
