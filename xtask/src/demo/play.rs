//! What the users do, all at once, each over real connections from its own address.

use std::{
    sync::mpsc::Sender,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use testbed::{
    client::Client,
    edge::{Edge, User},
};

use super::timeline::{Action, Seen};
use crate::stop;

/// The rules of `manifests/samples/detector/rules.yaml`, by what a user does to fire them.
pub(super) const STARTED: &str = "session-started";
pub(super) const OPENED: &str = "app-opened";
pub(super) const CLICKED: &str = "buy-click";
pub(super) const ENDED: &str = "session-ended";

/// An event that must come, once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Expected {
    /// The user it is about.
    pub(super) ue: String,
    /// The rule that emits it.
    pub(super) rule: &'static str,
    /// Whether a Trigger leads it to the function.
    pub(super) to_function: bool,
}

/// What must come of the play: per user one session begun and ended, one opening however many
/// connections it takes, and two presses.
pub(super) fn expected(users: &[User]) -> Vec<Expected> {
    let rules =
        [(STARTED, true), (OPENED, false), (CLICKED, true), (CLICKED, true), (ENDED, false)];
    let of_user = |user: &User| {
        let ue = user.address.to_string();
        rules.map(|(rule, to_function)| Expected { ue: ue.clone(), rule, to_function })
    };
    users.iter().flat_map(of_user).collect()
}

/// All users at once; returns when the last one is done.
pub(super) fn play(network: &Edge, megabytes: u32, seen: &Sender<Seen>) -> Result<()> {
    std::thread::scope(|scope| {
        let users: Vec<_> = network
            .users
            .iter()
            .enumerate()
            .map(|(index, user)| {
                let actor = Actor { network, user, seen: seen.clone() };
                // One of them presses twice in a hurry.
                scope.spawn(move || actor.act(index == 1, megabytes))
            })
            .collect();
        users.into_iter().try_for_each(|user| {
            user.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

struct Actor<'n> {
    network: &'n Edge,
    user: &'n User,
    seen: Sender<Seen>,
}

impl Actor<'_> {
    fn act(&self, in_a_hurry: bool, megabytes: u32) -> Result<()> {
        let ue = &self.network.ue;
        let from = Some(self.user.address);

        self.say("opens the shop: GET /", &[STARTED, OPENED]);
        let mut shop = Client::over(ue.connect(from, self.user.shop())?)?;
        ensure!(shop.get("/")?.status == 200);
        self.think()?;
        self.say("browses: GET /catalog/1, GET /catalog/2", &[]);
        ensure!(shop.get("/catalog/1")?.status == 200);
        ensure!(shop.get("/catalog/2")?.status == 200);
        self.think()?;
        self.say("presses buy: POST /api/buttons/buy", &[CLICKED]);
        self.buy(&mut shop)?;
        if in_a_hurry {
            self.say("presses again at once (the rule says: every 500ms)", &[]);
            self.buy(&mut shop)?;
        }

        self.say(&format!("downloads {megabytes} MB: GET /download"), &[]);
        let bytes = megabytes as usize * 1_000_000;
        let mut bulk = Client::over(ue.connect(from, self.user.shop())?)?;
        ensure!(bulk.get(&format!("/download?bytes={bytes}"))?.length == bytes);
        drop(bulk);

        self.say(
            "opens another application, which no rule knows: GET /, POST /api/buttons/buy",
            &[],
        );
        let mut other = Client::over(ue.connect(from, self.user.other())?)?;
        ensure!(other.get("/")?.status == 200);
        self.buy(&mut other)?;
        drop(other);

        // Longer than the rule's window, wherever in it the second press of a hurry was.
        self.think()?;
        self.think()?;
        self.say("presses buy: POST /api/buttons/buy", &[CLICKED]);
        self.buy(&mut shop)?;
        // Its event comes when the session has been quiet for the rules' `linger`.
        self.say("closes the shop", &[]);
        Ok(())
    }

    fn buy(&self, application: &mut Client) -> Result<()> {
        ensure!(application.post("/api/buttons/buy", r#"{"item":7}"#)?.status == 200);
        Ok(())
    }

    /// Announced before it is done, so that latencies begin at the user's finger.
    fn say(&self, what: &str, fires: &[&'static str]) {
        let action = Action {
            ue: self.user.address.to_string(),
            what: what.to_owned(),
            fires: fires.to_vec(),
            at: SystemTime::now(),
        };
        let _ = self.seen.send(Seen::Action(action));
    }

    /// People need time, and whoever watches them does too.
    fn think(&self) -> Result<()> {
        std::thread::sleep(Duration::from_millis(300));
        stop::check()
    }
}
