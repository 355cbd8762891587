//! `cargo xtask demo`: a user presses a button, and a function runs.
//!
//! [`testbed::edge`] (UE, UPF and data network as namespaces; [`testbed::ggsn`] puts a real GTP-U
//! tunnel in front of N6), [`services`] (application, function, Broker, agent), [`play`] (what the users do),
//! [`timeline`] (what is seen of it, as it comes, put together to each [`event`]'s way), [`verdict`] (the table, and whether the function
//! got exactly what it should).

mod event;
mod play;
mod services;
mod timeline;
mod verdict;

use std::{
    process::ExitCode,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::ValueEnum;
use nix::unistd::Uid;

use testbed::{
    edge::{self, Edge},
    ggsn,
};

use self::{services::Services, timeline::Timeline, verdict::Verdict};
use crate::{env::Env, setup::unpacked, shell, state::State, stop};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What carries users' packets to N6
    #[arg(long, value_enum, default_value_t = Upf::Router, value_name = "UPF")]
    upf: Upf,

    /// Leave everything running after the play, say how to poke it, and end at Ctrl-C
    #[arg(long)]
    keep: bool,

    /// Megabytes that each user downloads
    #[arg(long, default_value_t = 100, value_name = "MB")]
    download: u32,
}

/// What carries users' packets to N6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Upf {
    /// The kernel's own routing
    Router,
    /// Debian's osmo-ggsn, with a GTP-U tunnel for each user (sgsnemu)
    OsmoGgsn,
}

/// How long events may take from the last action of the play.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long is listened for events that should not come.
const QUIET: Duration = Duration::from_millis(700);

/// Installs what only this needs, or says why it cannot run, before anything is built.
pub(crate) fn prepare(env: &Env, args: &Args) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!(
            "the demo needs root: it makes network namespaces and loads kernel programs. \
             Run `sudo -E env PATH=\"$PATH\" cargo xtask demo`, or as root"
        );
    }
    if args.upf == Upf::OsmoGgsn {
        unpacked::need(env, &unpacked::OSMO_GGSN)?;
    }
    Ok(())
}

/// Runs it; the exit code is success only when the function got exactly the expected events.
pub(crate) fn run(env: &Env, args: &Args) -> Result<ExitCode> {
    stop::on_signals()?;
    for orphan in testbed::netns::sweep() {
        eprintln!("    deleted {orphan}, left by a run that was killed");
    }
    // Dropped in the reverse order, whatever happens: services, then the network under them.
    let state = State::create(env)?;
    let network = shell::step("network", || {
        let network = match args.upf {
            Upf::Router => edge::routed()?,
            Upf::OsmoGgsn => ggsn::network(state.path())?,
        };
        eprintln!("    {}", network.path);
        Ok(network)
    })?;
    stop::check()?;
    let (seen, sees) = mpsc::channel();
    let mut services = shell::step("services", || Services::start(env, &network, &seen))?;
    stop::check()?;

    let mut timeline = Timeline::begin(sees);
    let verdict = watch(&network, &mut services, &mut timeline, seen, args)?;
    verdict.print();
    if args.keep {
        println!("{}", services::how_to_poke(&network));
        while !stop::asked() {
            services.must_run()?;
            timeline.follow(Duration::from_millis(200));
        }
    }
    let begun = Instant::now();
    drop(services);
    drop(network);
    drop(state);
    eprintln!("==> cleaned up in {:.1} s", begun.elapsed().as_secs_f32());
    Ok(if verdict.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays the users and follows what comes of it, until everything expected came or time is up.
fn watch(
    network: &Edge,
    services: &mut Services,
    timeline: &mut Timeline,
    seen: mpsc::Sender<timeline::Seen>,
    args: &Args,
) -> Result<Verdict> {
    let expected = play::expected(&network.users);
    std::thread::scope(|scope| {
        let play = scope.spawn(|| play::play(network, args.download, &seen));
        while !play.is_finished() {
            timeline.follow(Duration::from_millis(20));
        }
        play.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let deadline = Instant::now() + PATIENCE;
    while !timeline.has_all(&expected) && Instant::now() < deadline {
        stop::check()?;
        services.must_run()?;
        timeline.follow(Duration::from_millis(20));
    }
    timeline.follow(QUIET);
    Verdict::reach(&expected, timeline, services)
}
