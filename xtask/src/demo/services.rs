//! What runs in the data network: the applications (in this process), and as processes of their
//! own the function, the Broker and the agent.

use std::{net::SocketAddr, path::Path, sync::mpsc::Sender, time::Duration};

use anyhow::{Context as _, Result};
use testbed::{
    agent::{self, Agent},
    app::App,
    edge::Edge,
    netns::Netns,
    process::{Output, Process},
    wait,
};

use super::timeline::{Seen, Source};
use crate::env::Env;

/// The config, and beside it the rules.
const CONFIG: &str = "manifests/samples/detector/config.yaml";
const FUNCTION: &str = "127.0.0.1:8082";
const BROKER: &str = "127.0.0.1:8081";
/// Where the agent listens unless its config says otherwise.
const ADMIN: &str = "127.0.0.1:9901";
const LIMIT: Duration = Duration::from_secs(15);

/// Everything that runs; ended in this order.
pub(super) struct Services<'n> {
    agent: Agent<'n>,
    broker: Process,
    function: Process,
    _applications: Vec<App>,
}

impl<'n> Services<'n> {
    /// Starts everything and waits until each answers.
    pub(super) fn start(env: &Env, network: &'n Edge, seen: &Sender<Seen>) -> Result<Self> {
        let dn = &network.dn;
        let applications = network.applications().into_iter().map(|at| App::start(dn.listen(at)?));
        let applications = applications.collect::<Result<Vec<_>>>()?;

        let mut function = dn.command(agent::binary("buy-function")?);
        function.args(["--listen", FUNCTION]);
        let mut function = follow("buy-function", function, Source::Function, seen)?;
        wait_for_port(&mut function, dn, FUNCTION)?;

        let mut broker = dn.command(agent::binary("detector")?);
        broker.current_dir(&env.root).args(["broker", "--output", "json", "--listen", BROKER]);
        broker.args(["--manifests", "manifests/samples"]);
        broker.args(["--service", &format!("buy-function=http://{FUNCTION}")]);
        let mut broker = follow("detector broker", broker, Source::Broker, seen)?;
        wait_for_port(&mut broker, dn, BROKER)?;

        let config = env.root.join(CONFIG);
        let agent = start_agent(dn, &config, seen)?;
        Ok(Self { agent, broker, function, _applications: applications })
    }

    /// Fails when one of them has ended.
    pub(super) fn must_run(&mut self) -> Result<()> {
        self.agent.must_run()?;
        self.broker.must_run()?;
        self.function.must_run()
    }

    /// The agent's metrics, as text.
    pub(super) fn metrics(&self) -> Result<String> {
        let answer = self.agent.admin_get("/metrics")?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

fn start_agent<'n>(dn: &'n Netns, config: &Path, seen: &Sender<Seen>) -> Result<Agent<'n>> {
    let seen = seen.clone();
    let mut agent =
        Agent::spawn_and_follow(Some(dn), config, ADMIN.parse()?, move |output, line| {
            report(Source::Agent, output, line, &seen);
        })?;
    agent.wait_until_ready(LIMIT)?;
    Ok(agent)
}

fn follow(
    name: &str,
    command: std::process::Command,
    source: Source,
    seen: &Sender<Seen>,
) -> Result<Process> {
    let seen = seen.clone();
    Process::spawn_and_follow(name, command, move |output, line| {
        report(source, output, line, &seen);
    })
}

/// Standard output is one JSON object a line; standard error is for people.
fn report(source: Source, output: Output, line: &str, seen: &Sender<Seen>) {
    let seen_now = match (output, serde_json::from_str(line)) {
        (Output::Stdout, Ok(json)) => Seen::Line(source, json),
        (Output::Stdout, Err(_)) | (Output::Stderr, _) => Seen::Said(source, line.to_owned()),
    };
    // Nobody listens any more at the end of the demo.
    let _ = seen.send(seen_now);
}

fn wait_for_port(process: &mut Process, namespace: &Netns, address: &str) -> Result<()> {
    let address: SocketAddr = address.parse().context("an address")?;
    wait::until(&address.to_string(), LIMIT, || {
        process.must_run()?;
        Ok(namespace.connect(None, address).ok())
    })?;
    Ok(())
}

/// Commands that a person can try while everything runs.
pub(super) fn how_to_poke(network: &Edge) -> String {
    let [ue, upf, dn] = [&network.ue, &network.upf, &network.dn].map(Netns::name);
    let user = network.users[0].address;
    let shop = network.users[0].shop();
    format!(
        "\nEverything keeps running. From another terminal, as root:\n\
         \x20 press \"buy\":   ip netns exec {ue} curl -s --interface {user} -X POST http://{shop}/api/buttons/buy\n\
         \x20 see N6:        ip netns exec {dn} tcpdump -ni n6 port 80\n\
         \x20 the UPF's side: ip netns exec {upf} tcpdump -ni any\n\
         \x20 metrics:       ip netns exec {dn} curl -s http://{ADMIN}/metrics\n\
         \x20 programs:      nsenter --net=/run/netns/{dn} bpftool net\n\
         \x20 another rule:  edit manifests/samples/detector/rules.yaml; the agent takes a good file at once\n\
         Ctrl-C ends it and cleans up.\n"
    )
}
