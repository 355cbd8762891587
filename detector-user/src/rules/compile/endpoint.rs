//! Where applications are served: prefixes and port ranges cut into classes, so that the packet path
//! only makes exact look-ups.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use detector_common::{
    packet::Protocol,
    rule::{ANY_PORT, ApplicationEntry, DIRECT, DIRECT_UDP, Tag},
};

use super::{
    Builder,
    prefix::{Prefix, contains, key_of, mapped},
};
use crate::rules::{
    model::{Application, Endpoint},
    table::Entry,
};

impl Builder<'_> {
    /// Endpoints -> address classes, port classes and (class, class) -> application; or from the address
    /// to the application at once, where there is no choice.
    ///
    /// The most specific endpoint wins: longest prefix, then fewest ports, then first in the file.
    pub(super) fn endpoints(&mut self, applications: &mut [ApplicationEntry]) {
        let all: Vec<Served> = self
            .set
            .applications
            .iter()
            .enumerate()
            .flat_map(|(number, application)| served(number as u32, application))
            .collect();
        let classes = self.port_classes(&all);
        self.application_prefixes = all.iter().map(|served| served.prefix).collect();
        for (class, prefix) in self.application_prefixes.clone().into_iter().enumerate() {
            let class = class as u32;
            let mut here: Vec<&Served> =
                all.iter().filter(|served| contains(served.prefix, prefix)).collect();
            here.sort_by_key(|served| (std::cmp::Reverse(served.prefix.1), served.width()));
            let direct = direct(&here, applications);
            if direct.is_none() {
                self.entries.extend(endpoint_entries(class, &here, &classes));
            }
            let (key, tag) = (key_of(prefix), Tag::application_prefix(prefix.1));
            self.entries.push(Entry { key, tag, value: direct.unwrap_or(class) });
        }
    }

    /// Cuts each protocol's ports at the borders of all ranges, numbers the pieces from 1, and
    /// writes the number of each port. Ranges over all ports are left to the `ANY_PORT` entry.
    fn port_classes(&mut self, all: &[Served]) -> BTreeMap<(Protocol, u16), u16> {
        let mut classes = BTreeMap::new();
        for (half, protocol) in [(0, Protocol::Tcp), (1 << 16, Protocol::Udp)] {
            let narrow = || all.iter().filter(move |s| s.protocol() == protocol && !s.any_port());
            let borders: BTreeSet<u32> = narrow()
                .flat_map(|s| [u32::from(*s.ports().start()), u32::from(*s.ports().end()) + 1])
                .collect();
            for (start, end) in borders.iter().zip(borders.iter().skip(1)) {
                if !narrow().any(|s| s.ports().contains(&(*start as u16))) {
                    continue;
                }
                let class = classes.len() as u16 + 1;
                classes.insert((protocol, *start as u16), class);
                for port in *start..*end {
                    let cell = half + port as usize;
                    self.ports[cell / 4][cell % 4] = class;
                }
            }
        }
        classes
    }
}

/// One endpoint of one application.
struct Served<'a> {
    application: u32,
    of: &'a Application,
    prefix: Prefix,
    endpoint: &'a Endpoint,
}

impl Served<'_> {
    fn protocol(&self) -> Protocol {
        self.endpoint.protocol
    }
    fn ports(&self) -> &std::ops::RangeInclusive<u16> {
        &self.endpoint.ports
    }
    fn width(&self) -> u32 {
        u32::from(*self.ports().end()) - u32::from(*self.ports().start())
    }
    fn any_port(&self) -> bool {
        *self.ports().start() <= 1 && *self.ports().end() == u16::MAX
    }
}

fn served(number: u32, application: &Arc<Application>) -> impl Iterator<Item = Served<'_>> {
    application.endpoints.iter().map(move |endpoint| Served {
        application: number,
        of: application,
        prefix: mapped(endpoint.prefix),
        endpoint,
    })
}

/// The value of a prefix at which only one application is served, whose endpoints, here and elsewhere, are
/// all of one protocol and range of ports; the ports go into its entry.
fn direct(here: &[&Served], applications: &mut [ApplicationEntry]) -> Option<u32> {
    let (first, others) = here.split_first()?;
    let endpoint = first.endpoint;
    let alike =
        |other: &Endpoint| other.protocol == endpoint.protocol && other.ports == endpoint.ports;
    if others.iter().any(|other| other.application != first.application)
        || !first.of.endpoints.iter().all(alike)
    {
        return None;
    }
    let from = if first.any_port() { 0 } else { *endpoint.ports.start() };
    applications[first.application as usize].ports = [from, *endpoint.ports.end()];
    let protocol = match endpoint.protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => DIRECT_UDP,
    };
    Some(DIRECT | protocol | first.application)
}

/// The entries of one address class: for each port class the most specific endpoint that covers
/// it, and for each protocol the one over all ports. `here` is sorted, most specific first.
fn endpoint_entries(
    class: u32,
    here: &[&Served],
    classes: &BTreeMap<(Protocol, u16), u16>,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for ((protocol, start), port_class) in classes {
        let winner = here
            .iter()
            .find(|served| served.protocol() == *protocol && served.ports().contains(start));
        // Where an endpoint over all ports wins, the ANY_PORT entry below says so already, unless
        // a wider prefix has a narrower range, which must not win.
        if let Some(winner) = winner
            && (!winner.any_port() || here.iter().any(|s| !s.any_port()))
        {
            let key = [u64::from(class), u64::from(*port_class)];
            entries.push(Entry { key, tag: Tag::ENDPOINT, value: winner.application });
        }
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        if let Some(winner) = here.iter().find(|s| s.protocol() == protocol && s.any_port()) {
            let key = [u64::from(class), ANY_PORT | protocol as u64];
            entries.push(Entry { key, tag: Tag::ENDPOINT, value: winner.application });
        }
    }
    entries
}
