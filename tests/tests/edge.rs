//! The network of the demo: users reach the application through N6 with the addresses they have.

use std::net::IpAddr;

use anyhow::Result;
use testbed::{app::App, client::Client, edge::Edge, ggsn, netns::Netns};

/// Every user asks the shop something; returns who the shop saw.
fn everybody_visits(edge: &Edge) -> Result<Vec<IpAddr>> {
    let shops = edge.applications().into_iter().map(|at| App::start(edge.dn.listen(at)?));
    let shops = shops.collect::<Result<Vec<_>>>()?;
    for user in &edge.users {
        for application in [user.shop(), user.other()] {
            let mut client = Client::over(edge.ue.connect(Some(user.address), application)?)?;
            assert_eq!(client.get("/download?bytes=200000")?.length, 200_000);
        }
    }
    Ok(shops.iter().flat_map(App::seen).map(|request| request.from).collect())
}

fn twice_each(edge: &Edge) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = edge.users.iter().flat_map(|user| [user.address; 2]).collect();
    addresses.sort();
    addresses
}

fn check(edge: &Edge) -> Result<()> {
    assert!(edge.users.iter().any(|user| user.address.is_ipv4()));
    assert!(edge.users.iter().any(|user| user.address.is_ipv6()));
    let mut seen = everybody_visits(edge)?;
    seen.sort();
    assert_eq!(seen, twice_each(edge));
    Ok(())
}

#[test]
fn users_behind_a_routing_upf_keep_their_addresses() -> Result<()> {
    testbed::need_root!();
    let edge = testbed::edge::routed()?;
    check(&edge)
}

#[test]
fn users_in_gtpu_tunnels_keep_their_addresses_and_are_tunnelled() -> Result<()> {
    testbed::need_root!();
    if !ggsn::is_installed() {
        testbed::skip!("needs osmo-ggsn (`cargo xtask demo --upf osmo-ggsn` installs it)");
    }
    let state = tempfile::tempdir()?;
    let edge = ggsn::network(state.path())?;
    let before = received(&edge.upf, "n3")?;
    check(&edge)?;
    assert!(received(&edge.upf, "n3")? > before, "nothing came through N3");
    Ok(())
}

/// Bytes that a device has received.
fn received(namespace: &Netns, device: &str) -> Result<u64> {
    let table = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line = table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let bytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    bytes.ok_or_else(|| anyhow::anyhow!("no {device} in {table}"))
}
