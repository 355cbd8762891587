//! When to look again: devices that appear, vanish, change or get another name, told by the
//! kernel over rtnetlink.

use std::collections::BTreeMap;

use futures::{FutureExt as _, Stream, StreamExt as _, channel::mpsc::UnboundedReceiver, stream};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage},
    sys::SocketAddr,
};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::device::{self, Device, ListError};

/// Something happened to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum LinkChange {
    /// It is new here: made, or moved into this network namespace.
    Appeared {
        /// Interface index.
        index: u32,
        /// Name.
        name: String,
    },
    /// It is gone: deleted, or moved away.
    Vanished {
        /// Interface index.
        index: u32,
        /// Last known name.
        name: String,
    },
    /// It got another name.
    Renamed {
        /// Interface index.
        index: u32,
        /// Old name.
        from: String,
        /// New name.
        to: String,
    },
    /// Something else about it: up, down, MTU ...
    Changed {
        /// Interface index.
        index: u32,
        /// Name.
        name: String,
    },
    /// Messages were lost; everything may have changed.
    Resync,
}

/// Follows the devices of the network namespace it was started in.
#[derive(Debug)]
pub struct Watcher {
    known: BTreeMap<u32, String>,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Watcher {
    /// Subscribes. Changes from here on are told; list devices after, so that none is missed.
    pub async fn start() -> Result<Self, ListError> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
                .map_err(ListError::Socket)?;
        let connection = tokio::spawn(connection);
        let devices = device::list().await?;
        let known = devices.into_iter().map(|device| (device.index, device.name)).collect();
        Ok(Self { known, messages, connection })
    }

    /// Waits for a change and returns it with all that came with it; `None` when the kernel's
    /// socket broke. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Option<Vec<LinkChange>> {
        loop {
            let (message, _) = self.messages.next().await?;
            let mut changes = Vec::from_iter(note(&mut self.known, message.payload));
            while let Some(Some((message, _))) = self.messages.next().now_or_never() {
                changes.extend(note(&mut self.known, message.payload));
            }
            if !changes.is_empty() {
                return Some(changes);
            }
        }
    }

    /// The changes as a stream, one at a time.
    pub fn changes(self) -> impl Stream<Item = LinkChange> {
        stream::unfold(self, |mut watcher| async move {
            let changes = watcher.changed().await?;
            Some((stream::iter(changes), watcher))
        })
        .flatten()
    }
}

/// What a message says, given the names known so far.
fn note(
    known: &mut BTreeMap<u32, String>,
    payload: NetlinkPayload<RouteNetlinkMessage>,
) -> Option<LinkChange> {
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if is_device(&link) => {
            let Device { index, name, .. } = Device::from_message(&link);
            Some(match known.insert(index, name.clone()) {
                None => LinkChange::Appeared { index, name },
                Some(from) if from != name => LinkChange::Renamed { index, from, to: name },
                Some(_) => LinkChange::Changed { index, name },
            })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) if is_device(&link) => {
            let index = link.header.index;
            known.remove(&index).map(|name| LinkChange::Vanished { index, name })
        }
        NetlinkPayload::Overrun(_) => Some(LinkChange::Resync),
        _ => None,
    }
}

/// The bridge speaks of its ports in the same messages: a `DelLink` of family `AF_BRIDGE` means
/// that the device left the bridge, not that it is gone.
fn is_device(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Unspec
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::LinkAttribute;

    use super::*;

    fn link(index: u32, name: &str) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        message
    }

    fn new(index: u32, name: &str) -> NetlinkPayload<RouteNetlinkMessage> {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link(index, name)))
    }

    fn del(message: LinkMessage) -> NetlinkPayload<RouteNetlinkMessage> {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message))
    }

    #[test]
    fn tells_appearing_changing_renaming_and_vanishing_apart() {
        let mut known = BTreeMap::new();
        let index = 5;
        let name = || "n6".to_string();
        let told = [
            note(&mut known, new(5, "n6")),
            note(&mut known, new(5, "n6")),
            note(&mut known, new(5, "core0")),
            note(&mut known, del(link(5, "core0"))),
            note(&mut known, del(link(5, "core0"))),
        ];
        let expected = [
            Some(LinkChange::Appeared { index, name: name() }),
            Some(LinkChange::Changed { index, name: name() }),
            Some(LinkChange::Renamed { index, from: name(), to: "core0".into() }),
            Some(LinkChange::Vanished { index, name: "core0".into() }),
            None,
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn leaving_a_bridge_is_not_vanishing() {
        let mut known = BTreeMap::from([(5, "n6".to_string())]);
        let mut port = link(5, "n6");
        port.header.interface_family = AddressFamily::Bridge;
        assert_eq!(note(&mut known, del(port)), None);
        assert!(known.contains_key(&5));
    }

    #[test]
    fn lost_messages_ask_for_a_new_look() {
        let overrun = NetlinkPayload::Overrun(vec![]);
        assert_eq!(note(&mut BTreeMap::new(), overrun), Some(LinkChange::Resync));
    }
}
