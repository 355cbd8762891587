//! `detector broker`: arguments, and what is printed.

use std::{io::Write, net::SocketAddr, path::PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Broker, Config, DeliveryReport, Reporter, RunningBroker, Timeouts,
    manifest::Manifests,
    node::{Ack, Node},
    topology::{ServiceAddress, Topology},
};

/// Run a Broker on this box, from the manifests a cluster would take.
///
/// For a laptop, a demo or a one-box site: events are held in memory only, and everything is one
/// process. A cluster runs Knative Eventing instead; manifests and senders stay the same.
///
/// Senders POST CloudEvents to http://LISTEN/NAMESPACE/BROKER. Each Trigger's filter decides
/// whether its subscriber gets the event. The answer 202 comes after every subscriber has answered
/// (or at once, with the annotation messaging.knative.dev/async-handler: "true" on the Broker).
/// Failed deliveries are retried as the `delivery` spec says; by default 10 times, doubling from
/// 0.2 s. Every attempt is one line on standard output. OPTIONS on any path answers 200: use that
/// to see whether it is up.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  detector broker --manifests manifests/samples --service buy-function=http://127.0.0.1:8080
  curl -i http://127.0.0.1:8081/edge/default -H 'ce-specversion: 1.0' -H 'ce-id: 1' \\
    -H 'ce-source: /by/hand' -H 'ce-type: com.example.arshop.buy.clicked' \\
    -H 'content-type: application/json' -d '{}'

SIGTERM or Ctrl-C stops it: nothing more is taken in, deliveries that run get 5 s.
Exit code: 0 stopped, 1 the manifests or the address cannot be used.")]
pub struct BrokerArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8081")]
    pub listen: SocketAddr,

    /// YAML files or directories with Brokers, Triggers, Channels and Subscriptions
    ///
    /// As for kubectl: several documents in a file, directories without their subdirectories.
    /// Other kinds are counted and left out.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub manifests: Vec<PathBuf>,

    /// Where an object that a `ref` names listens on this box; repeat it for each
    ///
    /// Stands in for what a cluster would look up, e.g. the Knative Service of a Trigger's
    /// `subscriber.ref`. NAMESPACE/NAME=URL goes before NAME=URL.
    #[arg(long = "service", value_name = "[NAMESPACE/]NAME=URL")]
    pub services: Vec<ServiceAddress>,

    /// How to print deliveries
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How to print deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for people
    Text,
    /// A line of JSON: time, trigger, leg, event, type, source, subscriber, status, error, attempt, duration_ms
    Json,
}

/// Runs the Broker until SIGTERM or SIGINT.
pub async fn run(args: BrokerArgs) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let broker = start(&args).await?;
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
    eprintln!("Stopping: no more events are taken in.");
    match broker.shutdown().await {
        0 => eprintln!("Stopped; nothing was lost."),
        abandoned => eprintln!("Stopped; {abandoned} deliveries did not end in time and are lost."),
    }
    Ok(())
}

async fn start(args: &BrokerArgs) -> anyhow::Result<RunningBroker> {
    let manifests = Manifests::read(&args.manifests).context("the manifests cannot be used")?;
    let skipped = manifests.skipped.clone();
    let topology =
        Topology::new(manifests, &args.services).context("the manifests do not fit together")?;
    if topology.nodes().next().is_none() {
        anyhow::bail!("the manifests hold no Broker and no Channel; there is nothing to serve");
    }
    let summary: Vec<String> = topology.nodes().flat_map(describe).collect();
    let timeouts = Timeouts::default();
    let reporter = reporter(args.output);
    let config = Config { listen: args.listen, topology, reporter, timeouts };
    let broker = Broker::start(config).await?;
    eprintln!(
        "Local Broker on http://{} - for one box, events in memory only; a cluster runs Knative.",
        broker.addr
    );
    for line in summary {
        eprintln!("  {line}");
    }
    for (kind, count) in skipped {
        eprintln!("  left out: {count} {kind} (not for a Broker)");
    }
    Ok(broker)
}

/// What a person wants to check at start: addresses, and what leads where.
fn describe(node: &Node) -> Vec<String> {
    let ack = match node.ack {
        Ack::Sync => "202 after the subscribers have answered",
        Ack::Async => "202 at once",
    };
    let head = format!("{:?} /{}: {ack}", node.kind, node.name);
    let routes = node.routes.iter().map(|route| {
        let retries = route.delivery.retries;
        let sink = route.delivery.dead_letter.as_ref();
        let sink = sink.map_or_else(String::new, |sink| format!(", then {sink}"));
        format!("  {} -> {} ({retries} retries{sink})", route.label, route.subscriber)
    });
    std::iter::once(head).chain(routes).collect()
}

fn reporter(output: Output) -> Reporter {
    Reporter::new(move |report| {
        let line = match output {
            Output::Text => report.to_string(),
            Output::Json => json_line(&report),
        };
        // One write under the lock: lines of parallel deliveries stay whole. A closed pipe must
        // not stop deliveries.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    })
}

fn json_line(report: &DeliveryReport) -> String {
    serde_json::to_string(report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: BrokerArgs,
    }

    #[test]
    fn the_default_is_loopback_and_services_repeat() {
        let cli = Cli::try_parse_from([
            "broker",
            "--manifests",
            "a.yaml",
            "dir",
            "--service",
            "f=http://127.0.0.1:1",
            "--service",
            "edge/g=http://127.0.0.1:2",
            "--output",
            "json",
        ])
        .unwrap();
        assert!(cli.args.listen.ip().is_loopback());
        assert_eq!((cli.args.manifests.len(), cli.args.services.len()), (2, 2));
        assert_eq!(cli.args.output, Output::Json);
    }

    #[test]
    fn a_service_that_is_no_name_and_url_is_refused_with_an_example() {
        let error =
            Cli::try_parse_from(["broker", "--manifests", "a", "--service", "f"]).unwrap_err();
        assert!(error.to_string().contains("buy-function=http://127.0.0.1:8090"), "{error}");
    }

    #[test]
    fn the_help_says_what_it_is_for() {
        let help = Cli::try_parse_from(["broker", "--help"]).unwrap_err().to_string();
        for part in ["one-box", "A cluster runs Knative", "202", "Exit code", "curl"] {
            assert!(help.contains(part), "{part}: {help}");
        }
    }

    async fn refusal(yaml: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), yaml).unwrap();
        let args = BrokerArgs {
            listen: "127.0.0.1:0".parse().unwrap(),
            manifests: vec![dir.path().into()],
            services: vec![],
            output: Output::Text,
        };
        format!("{:#}", start(&args).await.err().expect("refused"))
    }

    #[tokio::test]
    async fn bad_manifests_stop_the_start_with_file_and_line() {
        let message =
            refusal("apiVersion: eventing.knative.dev/v1\nkind: Broker\nmeta: {}\n").await;
        assert!(message.contains("a.yaml:3:1") && message.contains("`meta`"), "{message}");
        let message = refusal("apiVersion: v1\nkind: Namespace\n").await;
        assert!(message.contains("no Broker and no Channel"), "{message}");
    }
}
