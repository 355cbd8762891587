//! A user, the application's host with the agent, and a receiver on that host's loopback.
//!
//! ```text
//!  ue (10.60.0.2, fd00:60::2) ue0 ----- n6 dn (10.45.0.10, fd00:45::10; agent, application, receiver)
//! ```

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use testbed::{
    agent::Agent,
    app::App,
    client::Client,
    netns::{Netns, veth},
    receiver::{Receiver, Recorded},
    wait,
};

/// How long anything may take on a loaded machine; nothing waits this long when all is well.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The receiver, the agent's `/metrics`: in the namespace nobody else listens.
pub(crate) const SINK: &str = "127.0.0.1:8081";
pub(crate) const ADMIN: &str = "127.0.0.1:9901";
/// The agent's control socket, beside its config.
pub(crate) const SOCKET: &str = "detector.sock";
/// The users, and the application as they reach it.
pub(crate) const UE: &str = "10.60.0.2";
pub(crate) const UE6: &str = "fd00:60::2";
pub(crate) const APP: &str = "10.45.0.10";
pub(crate) const APP6: &str = "fd00:45::10";
pub(crate) const BUY: &str = "/api/buttons/buy";

pub(crate) struct Bed {
    pub(crate) dn: Netns,
    pub(crate) ue: Netns,
    files: TempDir,
    _app: App,
}

impl Bed {
    /// With the link between user and host.
    pub(crate) fn new() -> Self {
        let bed = Self::unlinked();
        bed.link();
        bed
    }

    /// Before there is a device.
    pub(crate) fn unlinked() -> Self {
        let (dn, ue) = (Netns::new("dn").expect("dn"), Netns::new("ue").expect("ue"));
        let any = "[::]:80".parse().expect("address");
        let app = App::start(dn.listen(any).expect("port 80")).expect("application");
        let files = tempfile::tempdir().expect("directory");
        let bed = Self { dn, ue, files, _app: app };
        bed.write("rules.yaml", &rules(BUY));
        bed.write("config.yaml", &config());
        bed
    }

    /// Makes the link, as a UPF's host does while the agent runs.
    pub(crate) fn link(&self) {
        veth((&self.dn, "n6"), (&self.ue, "ue0")).expect("veth");
        self.address("n6", "ue0");
    }

    /// The addresses of both ends of a link.
    pub(crate) fn address(&self, n6: &str, ue0: &str) {
        for (app, ue) in [(APP, UE), (APP6, UE6)] {
            self.dn.ip(&format!("addr add {app} peer {ue} dev {n6}")).expect("address");
            self.ue.ip(&format!("addr add {ue} peer {app} dev {ue0}")).expect("address");
        }
    }

    /// Writes a file beside the config.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, text).expect("file");
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn sink(&self) -> TcpListener {
        self.dn.listen(SINK.parse().expect("address")).expect("the sink's port")
    }

    pub(crate) fn receiver(&self) -> Receiver {
        Receiver::start(self.sink()).expect("receiver")
    }

    /// `detector run`, with nothing of the tests' own environment that it reads.
    pub(crate) fn command(&self) -> Command {
        let config = self.path("config.yaml");
        let mut command = Agent::command(Some(&self.dn), &config).expect("`cargo xtask build`");
        for name in ["K_SINK", "K_CE_OVERRIDES", "DETECTOR_NODE", "NODE_NAME", "DETECTOR_LOG"] {
            command.env_remove(name);
        }
        command
    }

    /// The agent, not waited for.
    pub(crate) fn spawn(&self) -> Agent<'_> {
        self.spawn_command(self.command())
    }

    pub(crate) fn spawn_command(&self, command: Command) -> Agent<'_> {
        Agent::of(Some(&self.dn), command, ADMIN.parse().expect("address")).expect("agent")
    }

    /// The agent, ready.
    pub(crate) fn start(&self) -> Agent<'_> {
        let mut agent = self.spawn();
        agent.wait_until_ready(LIMIT).expect("ready");
        agent
    }

    /// A user's connection to the application.
    pub(crate) fn user(&self, from: &str) -> Client {
        let from: IpAddr = from.parse().expect("address");
        let app = if from.is_ipv4() { APP } else { APP6 };
        let to = SocketAddr::new(app.parse().expect("address"), 80);
        Client::over(self.ue.connect(Some(from), to).expect("connection")).expect("client")
    }

    /// A user presses the button, on a connection of its own.
    pub(crate) fn buy(&self, from: &str) {
        let answer = self.user(from).post(BUY, r#"{"item":42}"#).expect("answer");
        assert_eq!(answer.status, 200);
    }

    /// The device as `ip link` describes it.
    pub(crate) fn describe(&self, device: &str) -> String {
        let mut ip = self.dn.command("ip");
        let output = ip.args(["-d", "link", "show", "dev", device]).output().expect("ip");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

/// The application, and a rule for the button at this path.
pub(crate) fn rules(path: &str) -> String {
    rules_with(&format!("match: {{http: {{method: POST, path: {path}}}}}"), "{}")
}

/// The application with these settings, and rule `buy-click` with this match and what else.
pub(crate) fn rules_with(rule: &str, session: &str) -> String {
    format!(
        "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {{name: ar-shop}}
spec:
  endpoints:
    - {{cidr: {APP}, ports: [80]}}
    - {{cidr: '{APP6}', ports: [80]}}
    - {{cidr: {APP}, ports: [5004], protocol: udp}}
  session: {session}
{}",
        rule_text("buy-click", rule)
    )
}

/// One more rule document.
pub(crate) fn rule_text(name: &str, rule: &str) -> String {
    format!(
        "---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {{name: {name}}}
spec:
  application: ar-shop
  {rule}
  emit: {{type: com.example.{name}}}
"
    )
}

pub(crate) fn config() -> String {
    config_with("{name: n6}", &format!("sink: {{url: 'http://{SINK}/'}}"))
}

/// A config with this device, and these further lines of its spec.
pub(crate) fn config_with(device: &str, rest: &str) -> String {
    format!(
        "apiVersion: detector.dev/v1alpha1
kind: Config
spec:
  site: site-7
  node: mec-1
  devices: [{device}]
  uePools:
    - {{name: v4, cidr: 10.60.0.0/16}}
    - {{name: v6, cidr: 'fd00:60::/48'}}
  rules: [rules.yaml]
  admin: {{listen: '{ADMIN}', socket: {SOCKET}}}
  {rest}
"
    )
}

/// Where the receiver takes events.
pub(crate) fn sink() -> String {
    format!("http://{SINK}/")
}

/// The agent's `/status`.
pub(crate) fn status(agent: &Agent<'_>) -> Value {
    let answer = agent.admin_get("/status").expect("/status");
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// What a counter of a rule says in `/status`.
pub(crate) fn rule_count(agent: &Agent<'_>, rule: &str, counter: &str) -> u64 {
    let status = status(agent);
    status["rules"][rule][counter].as_u64().unwrap_or_else(|| panic!("{rule} {counter}: {status}"))
}

/// The sum of all series of a metric whose labels contain all of these.
pub(crate) fn metric(agent: &Agent<'_>, name: &str, labels: &[&str]) -> f64 {
    let answer = agent.admin_get("/metrics").expect("/metrics");
    let text = String::from_utf8(answer.body).expect("text");
    let series = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| {
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        })
    });
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits until the agent has read all that the kernel has recorded of the rule. Right after its start
/// it knows of nothing that is on its way.
pub(crate) fn all_read(agent: &Agent<'_>, rule: &str) {
    eventually("the ring is read", || status(agent)["ledger"][rule]["in_ring"] == 0);
}

/// Waits until the agent has found the rule's books to balance, and adds them up itself.
pub(crate) fn balanced(agent: &Agent<'_>, rule: &str) {
    let label = format!("rule=\"{rule}\"");
    eventually("the agent has looked at its books", || {
        let answer = agent.admin_get("/metrics").expect("/metrics");
        let text = String::from_utf8(answer.body).expect("text");
        let looked =
            |line: &str| line.starts_with("detector_ledger_imbalance") && line.contains(&label);
        text.lines().any(looked) && status(agent)["ledger"][rule]["in_ring"] == 0
    });
    // What the reader counts is told ten times a second, what sinks count at once.
    let books = || status(agent)["ledger"][rule].clone();
    let books = wait::until("the books balance", LIMIT, || Ok(Some(books()).filter(adds_up)))
        .unwrap_or_else(|error| panic!("{error}: {}", books()));
    assert_eq!(metric(agent, "detector_ledger_imbalance", &[]), 0.0, "{books}");
    assert_eq!(metric(agent, "detector_ledger_mistakes_total", &[]), 0.0, "{books}");
}

/// Whether what was detected is somewhere, and each sink got all that was emitted.
fn adds_up(books: &Value) -> bool {
    let sum = |names: &[&str]| -> u64 {
        names
            .iter()
            .map(|name| books[name].as_u64().unwrap_or_else(|| panic!("{name}: {books}")))
            .sum()
    };
    let left = sum(&["detected", "read_again"]);
    let held_back = sum(&["suppressed", "rate_limited", "filtered"]);
    let right = held_back + sum(&["lost_in_kernel", "in_ring", "read_before", "emitted"]);
    let mut sinks = books["sinks"].as_object().into_iter().flatten();
    left == right && sinks.all(|(_, row)| row["entered"] == books["emitted"])
}

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    wait::until(what, LIMIT, || Ok(condition().then_some(()))).expect("in time");
}

/// Waits until so many events have ended in this way at the sink, and gives their ids.
pub(crate) fn settled(agent: &Agent<'_>, kind: &str, count: usize) -> Vec<String> {
    let what = format!("{count} events {kind}");
    wait::until(&what, LIMIT, || {
        let lines = agent.output();
        let lines = lines.iter().filter(|line| line["kind"] == kind);
        let ids: Vec<String> =
            lines.filter_map(|line| Some(line["event_id"].as_str()?.to_owned())).collect();
        Ok((ids.len() >= count).then_some(ids))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", agent.tail()))
}

/// The requests' event ids.
pub(crate) fn ids(requests: &[Recorded]) -> Vec<&str> {
    requests.iter().map(|request| request.header("ce-id")).collect()
}

/// Only events of one user keep their order.
pub(crate) fn by_user(mut requests: Vec<Recorded>) -> Vec<Recorded> {
    requests.sort_by(|a, b| a.header("ce-ueip").cmp(b.header("ce-ueip")));
    requests
}

/// Waits for the end of an agent that refuses to start: exit code 1, and what it said.
pub(crate) fn refusal(mut agent: Agent<'_>) -> String {
    let status = agent.wait(LIMIT).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", agent.tail());
    agent
        .wait_for_line(LIMIT, |line| line.starts_with("error:") || line.contains(".yaml:"))
        .expect("a message");
    agent.tail()
}
