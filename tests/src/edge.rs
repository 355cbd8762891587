//! A whole edge as namespaces, with users, a UPF and the place for applications. The demo's network,
//! and what tests take that need the whole path.
//!
//! ```text
//!  ue ----------- upf ----------- dn
//!  users          N6 begins       the application's host: its device `n6` looks at the UPF
//! ```

use std::net::{IpAddr, SocketAddr};

use crate::{
    ggsn::Tunnels,
    netns::{Netns, veth},
};
use anyhow::Result;

/// The shop, and a second application that no rule knows.
const APPLICATIONS: [&str; 2] = ["10.45.0.10/24", "fd00:45::10/64"];
const SHOP_PORT: u16 = 80;
const OTHER_PORT: u16 = 81;

/// One user's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The address that the network gave it.
    pub address: IpAddr,
}

impl User {
    /// Where this user finds the application at this port: over its own version of IP.
    fn application(&self, port: u16) -> SocketAddr {
        match self.address {
            IpAddr::V4(_) => SocketAddr::from(([10, 45, 0, 10], port)),
            IpAddr::V6(_) => SocketAddr::from(([0xfd00, 0x45, 0, 0, 0, 0, 0, 0x10], port)),
        }
    }

    /// The shop.
    pub fn shop(&self) -> SocketAddr {
        self.application(SHOP_PORT)
    }

    /// The application that no rule knows.
    pub fn other(&self) -> SocketAddr {
        self.application(OTHER_PORT)
    }
}

/// The namespaces and who is in them.
pub struct Edge {
    /// Declared first, so that it ends first: what makes the tunnels, if there are any.
    pub(crate) _tunnels: Option<Tunnels>,
    /// Where the users' addresses are.
    pub ue: Netns,
    /// The UPF; its end of N6 is `n6` too.
    pub upf: Netns,
    /// The application's host; `n6` looks at the UPF.
    pub dn: Netns,
    /// The users.
    pub users: Vec<User>,
    /// For people: how packets get to N6.
    pub path: &'static str,
}

impl Edge {
    /// Where the applications listen, in `dn`.
    pub fn applications(&self) -> Vec<SocketAddr> {
        let addresses = APPLICATIONS.iter().filter_map(|cidr| cidr.split('/').next()?.parse().ok());
        addresses
            .flat_map(|ip: IpAddr| [SHOP_PORT, OTHER_PORT].map(|port| SocketAddr::new(ip, port)))
            .collect()
    }
}

/// Users on a plain link to a UPF that is nothing but the kernel's routing.
pub fn routed() -> Result<Edge> {
    let (ue, upf, dn) = (Netns::new("ue")?, Netns::new("upf")?, Netns::new("dn")?);
    n6(&upf, &dn)?;
    veth((&ue, "radio"), (&upf, "access"))?;
    upf.ip("addr add 10.60.0.1/24 dev access")?;
    upf.ip("addr add fd00:60::1/64 dev access")?;
    let mut users = Vec::new();
    for (address, length) in [
        ("10.60.0.2", 24),
        ("10.60.0.3", 24),
        ("10.60.0.4", 24),
        ("fd00:60::2", 64),
        ("fd00:60::3", 64),
    ] {
        ue.ip(&format!("addr add {address}/{length} dev radio"))?;
        users.push(User { address: address.parse()? });
    }
    ue.ip("route add default via 10.60.0.1")?;
    ue.ip("route add default via fd00:60::1")?;
    let path = "ue --(veth)--> upf (kernel routing) --(N6: veth)--> dn";
    Ok(Edge { _tunnels: None, ue, upf, dn, users, path })
}

/// The N6 link between the UPF and the application's host.
pub(crate) fn n6(upf: &Netns, dn: &Netns) -> Result<()> {
    upf.enable_forwarding()?;
    veth((upf, "n6"), (dn, "n6"))?;
    upf.ip("addr add 10.45.0.1/24 dev n6")?;
    upf.ip("addr add fd00:45::1/64 dev n6")?;
    for address in APPLICATIONS {
        dn.ip(&format!("addr add {address} dev n6"))?;
    }
    dn.ip("route add default via 10.45.0.1")?;
    dn.ip("route add default via fd00:45::1")
}
