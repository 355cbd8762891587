//! What there is: the facts of a device that decide where programs can attach.
//!
//! They come from rtnetlink and not from `/sys/class/net`, because sysfs shows the namespace it
//! was mounted in, and rtnetlink the one the caller is in.

use std::{io, path::Path};

use futures::TryStreamExt as _;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use serde::Serialize;

/// Facts of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Interface index; unique for the life of the device.
    pub index: u32,
    /// Name; may change while the device lives.
    pub name: String,
    /// What its packets start with.
    pub layer: Layer,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Is it up?
    pub up: bool,
    /// What kind it is: `veth`, `tun`, `vlan`, or the driver of a card, e.g. `virtio_net`.
    pub kind: Option<String>,
    /// The XDP programs on it now.
    pub xdp: Vec<XdpSlot>,
}

/// What a packet of a device starts with, and so which parser entry fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// The IP header: tun, gtp, wireguard, ipip, ppp ...
    Ip,
    /// Something Detector does not read; the `ARPHRD_*` number.
    Other(u16),
}

/// An XDP program on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct XdpSlot {
    /// Who runs it.
    pub mode: XdpSlotMode,
    /// Its number in the kernel (`bpftool prog show id N`).
    pub program_id: u32,
}

/// Who runs an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpSlotMode {
    /// The driver.
    Native,
    /// The network stack.
    Generic,
    /// The card itself.
    Offload,
}

impl XdpSlotMode {
    /// As operators say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
        }
    }
}

/// The devices of this network namespace could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(io::Error),
    /// The dump failed.
    #[error("cannot list network devices: {0}")]
    Dump(rtnetlink::Error),
}

/// All devices of the calling thread's network namespace, by index.
pub async fn list() -> Result<Vec<Device>, ListError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(ListError::Socket)?;
    let connection = tokio::spawn(connection);
    let messages = handle.link().get().execute().try_collect::<Vec<_>>().await;
    connection.abort();
    let messages = messages.map_err(ListError::Dump)?;
    let mut devices: Vec<_> = messages.iter().map(Device::from_message).collect();
    devices.sort_by_key(|device| device.index);
    Ok(devices)
}

impl Device {
    /// Reads an `RTM_NEWLINK` message.
    pub fn from_message(message: &LinkMessage) -> Self {
        let mut device = Self {
            index: message.header.index,
            name: String::new(),
            layer: Layer::of(message.header.link_layer_type),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            kind: None,
            xdp: Vec::new(),
        };
        let mut parent = (None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => device.kind = kind(infos),
                LinkAttribute::Xdp(slots) => device.xdp = slots.iter().filter_map(slot).collect(),
                LinkAttribute::ParentDevBusName(bus) => parent.0 = Some(bus),
                LinkAttribute::ParentDevName(name) => parent.1 = Some(name),
                _ => {}
            }
        }
        if let (None, (Some(bus), Some(name))) = (&device.kind, parent) {
            device.kind = driver(bus, name);
        }
        device
    }
}

impl Layer {
    fn of(link: LinkLayerType) -> Self {
        match link {
            // The loopback device has an Ethernet header of zeros.
            LinkLayerType::Ether | LinkLayerType::Loopback => Self::Ethernet,
            LinkLayerType::None
            | LinkLayerType::Rawip
            | LinkLayerType::Ppp
            | LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre
            | LinkLayerType::Ip6gre => Self::Ip,
            other => Self::Other(other.into()),
        }
    }
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

fn slot(attribute: &LinkXdp) -> Option<XdpSlot> {
    let (mode, program_id) = match *attribute {
        LinkXdp::DrvProgId(id) => (XdpSlotMode::Native, id),
        LinkXdp::SkbProgId(id) => (XdpSlotMode::Generic, id),
        LinkXdp::HwProgId(id) => (XdpSlotMode::Offload, id),
        // ProgId repeats one of the three above (rtnl_xdp_fill).
        _ => return None,
    };
    (program_id != 0).then_some(XdpSlot { mode, program_id })
}

/// The driver of a card. `/sys/bus`, unlike `/sys/class/net`, is the same in every namespace.
fn driver(bus: &str, device: &str) -> Option<String> {
    let link = Path::new("/sys/bus").join(bus).join("devices").join(device).join("driver");
    Some(std::fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{InfoKind, LinkHeader, XdpAttached};

    use super::*;

    fn message(layer: LinkLayerType, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header = LinkHeader {
            index: 7,
            link_layer_type: layer,
            flags: LinkFlags::Up,
            ..Default::default()
        };
        message.attributes = attributes;
        message
    }

    #[test]
    fn reads_a_veth_with_native_xdp() {
        let device = Device::from_message(&message(
            LinkLayerType::Ether,
            vec![
                LinkAttribute::IfName("n6".into()),
                LinkAttribute::Mtu(1500),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
                LinkAttribute::Xdp(vec![
                    LinkXdp::Attached(XdpAttached::Driver),
                    LinkXdp::ProgId(12),
                    LinkXdp::DrvProgId(12),
                ]),
            ],
        ));
        let native = XdpSlot { mode: XdpSlotMode::Native, program_id: 12 };
        let expected = Device {
            index: 7,
            name: "n6".into(),
            layer: Layer::Ethernet,
            mtu: 1500,
            up: true,
            kind: Some("veth".into()),
            xdp: vec![native],
        };
        assert_eq!(device, expected);
    }

    #[test]
    fn a_program_in_each_mode_is_two_slots() {
        let device = Device::from_message(&message(
            LinkLayerType::Ether,
            vec![LinkAttribute::Xdp(vec![LinkXdp::HwProgId(3), LinkXdp::SkbProgId(4)])],
        ));
        let modes: Vec<_> = device.xdp.iter().map(|slot| slot.mode).collect();
        assert_eq!(modes, [XdpSlotMode::Offload, XdpSlotMode::Generic]);
    }

    #[test]
    fn tunnels_start_with_the_ip_header_and_can_does_not() {
        let layer = |link| Device::from_message(&message(link, vec![])).layer;
        assert_eq!(layer(LinkLayerType::None), Layer::Ip);
        assert_eq!(layer(LinkLayerType::Sit), Layer::Ip);
        assert_eq!(layer(LinkLayerType::Loopback), Layer::Ethernet);
        assert_eq!(layer(LinkLayerType::Can), Layer::Other(280));
    }

    #[tokio::test]
    async fn the_loopback_device_is_listed() {
        let devices = list().await.unwrap();
        let lo = devices.iter().find(|device| device.name == "lo").unwrap();
        assert_eq!((lo.index, lo.layer), (1, Layer::Ethernet));
        assert!(lo.mtu > 0);
    }
}
