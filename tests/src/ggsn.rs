//! A real GTP-U user plane from Debian: osmo-ggsn as the UPF, and for each user an sgsnemu that
//! opens a PDP context (its session) and gives the user a tun device with the address it got.
//!
//! ```text
//!  ue (tun each) == ran (sgsnemu) --(N3: GTP-U)--> upf (osmo-ggsn) --(N6)--> dn
//! ```

use std::{fs, net::IpAddr, path::Path, process::Command, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::{
    edge::{Edge, User, n6},
    netns::{Netns, veth},
    process::Process,
    wait,
};

/// Users over IPv4, and after them one over IPv6.
const USERS: [Pdp; 3] = [
    Pdp { apn: "internet", pdp_type: "v4" },
    Pdp { apn: "internet", pdp_type: "v4" },
    Pdp { apn: "inet6", pdp_type: "v6" },
];
const LIMIT: Duration = Duration::from_secs(60);

/// What a user asks the network for.
struct Pdp {
    apn: &'static str,
    pdp_type: &'static str,
}

/// The programs that keep the tunnels up; they end with this.
pub struct Tunnels {
    phones: Vec<Process>,
    _ggsn: Process,
    _ran: Netns,
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        // On SIGTERM sgsnemu takes seconds for a polite goodbye to a network that goes away too.
        self.phones.iter().for_each(|phone| drop(phone.signal(Signal::SIGKILL)));
    }
}

/// Whether the programs are there (Debian package `osmo-ggsn`).
pub fn is_installed() -> bool {
    ["osmo-ggsn", "sgsnemu"]
        .iter()
        .all(|program| Command::new(program).arg("--help").output().is_ok())
}

/// Builds it; the programs keep their state in this directory while they run.
pub fn network(directory: &Path) -> Result<Edge> {
    let (ue, upf, dn) = (Netns::new("ue")?, Netns::new("upf")?, Netns::new("dn")?);
    let ran = Netns::new("ran")?;
    n6(&upf, &dn)?;
    n3(&ran, &upf)?;
    let mut ggsn = start_ggsn(&upf, directory)?;
    let mut phones = Vec::new();
    let mut users = Vec::new();
    for (index, pdp) in USERS.iter().enumerate() {
        ggsn.must_run()?;
        let (phone, user) = attach(index, pdp, &ran, &ue, directory)?;
        phones.push(phone);
        users.push(user);
    }
    let tunnels = Tunnels { phones, _ggsn: ggsn, _ran: ran };
    let path = "ue == ran (sgsnemu) --(N3: GTP-U)--> upf (osmo-ggsn) --(N6: veth)--> dn";
    Ok(Edge { _tunnels: Some(tunnels), ue, upf, dn, users, path })
}

/// The link between radio and core; sgsnemu needs an address of its own for each user.
fn n3(ran: &Netns, upf: &Netns) -> Result<()> {
    veth((ran, "n3"), (upf, "n3"))?;
    // Room for the outer headers around a full packet.
    ran.ip("link set n3 mtu 1600")?;
    upf.ip("link set n3 mtu 1600")?;
    upf.ip("addr add 10.100.0.1/24 dev n3")?;
    (0..USERS.len()).try_for_each(|index| ran.ip(&format!("addr add {}/24 dev n3", radio(index))))
}

fn radio(index: usize) -> String {
    format!("10.100.0.{}", 11 + index)
}

fn start_ggsn(upf: &Netns, state: &Path) -> Result<Process> {
    let directory = state.join("ggsn");
    fs::create_dir_all(&directory)?;
    let config = state.join("osmo-ggsn.cfg");
    fs::write(&config, ggsn_config(&directory.display().to_string()))?;
    let mut command = upf.command("osmo-ggsn");
    command.arg("-c").arg(&config);
    let mut ggsn = Process::spawn("osmo-ggsn", command)?;
    for device in ["tun4", "tun6"] {
        wait::until(&format!("osmo-ggsn's device {device}"), LIMIT, || {
            ggsn.must_run()?;
            Ok(upf.ip(&format!("link show {device}")).ok())
        })?;
    }
    Ok(ggsn)
}

fn ggsn_config(directory: &str) -> String {
    format!(
        "log stderr\n logging filter all 1\n logging level set-all notice\n\
         line vty\n no login\n\
         ggsn ggsn0\n gtp state-dir {directory}\n gtp bind-ip 10.100.0.1\n\
         \x20apn internet\n  gtpu-mode tun\n  tun-device tun4\n  type-support v4\n\
         \x20 ip prefix dynamic 10.60.0.0/24\n  ip ifconfig 10.60.0.1/24\n  no shutdown\n\
         \x20apn inet6\n  gtpu-mode tun\n  tun-device tun6\n  type-support v6\n\
         \x20 ipv6 prefix dynamic fd00:60:0:100::/56\n  ipv6 ifconfig fd00:60:0:100::1/56\n\
         \x20 no shutdown\n\
         \x20default-apn internet\n no shutdown ggsn\n"
    )
}

/// Opens one user's session and waits for its address.
fn attach(
    index: usize,
    pdp: &Pdp,
    ran: &Netns,
    ue: &Netns,
    state: &Path,
) -> Result<(Process, User)> {
    let device = format!("ue{index}");
    let directory = state.join(&device);
    fs::create_dir_all(&directory)?;
    let mut command = ran.command("sgsnemu");
    command
        .args(["-l", &radio(index), "-r", "10.100.0.1", "-t", pdp.pdp_type, "-a", pdp.apn])
        // No leading zero in the IMSI: sgsnemu drops it.
        .args([
            "-i",
            &format!("24001000000000{}", index + 1),
            "-m",
            &format!("4670200000{}", index + 1),
        ])
        .args(["-d", "--createif", "--tun-device", &device, "--netns", ue.name()])
        .arg("--statedir")
        .arg(&directory)
        .arg("--pidfile")
        .arg(directory.join("pid"));
    let mut phone = Process::spawn("sgsnemu", command)?;
    let address = wait::until(&format!("an address for user {}", index + 1), LIMIT, || {
        phone.must_run()?;
        Ok(address_of(ue, &device, pdp.pdp_type))
    })?;
    // Each user's packets leave through that user's own tunnel.
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    let table = 100 + index;
    ue.ip(&format!("{family} route add default dev {device} table {table}"))?;
    ue.ip(&format!("{family} rule add from {address} table {table}"))?;
    ue.ip(&format!("{family} route replace default dev {device} metric {table}"))?;
    Ok((phone, User { address }))
}

/// The global address of a device in the users' namespace, once it has one.
fn address_of(ue: &Netns, device: &str, pdp_type: &str) -> Option<IpAddr> {
    let family = if pdp_type == "v4" { "-4" } else { "-6" };
    let mut ip = Command::new("ip");
    ip.args(["-n", ue.name(), family, "-o", "addr", "show", "dev", device, "scope", "global"]);
    let output = ip.output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    let mut words = line.split_whitespace().skip_while(|word| !word.starts_with("inet"));
    words.next()?;
    words.next()?.split('/').next()?.parse().ok()
}
