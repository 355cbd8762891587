//! Header layouts as they stand on the wire, and what their bits mean: the one place where a format is
//! written down that both [`crate::parse`] and the walk through captures read.

mod ip;
mod link;
mod transport;
mod tunnel;

pub use self::{
    ip::{Ipv4, Ipv6, Ipv6Extension, Ipv6Fragment, ip_protocol},
    link::{Ethernet, MplsEntry, Pppoe, VLAN_ID, VlanTag, ethertype, ppp},
    transport::{Tcp, Udp, port, tcp_flag},
    tunnel::{Gre, Gtpu, GtpuOptions, Vxlan},
};
