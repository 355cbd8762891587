//! Packets of a network device, both directions, by an AF_PACKET socket (packet(7)): what a machine
//! can do that cannot load eBPF programs. Every packet is copied to user space; what it cannot take
//! in time is lost, and the kernel counts it.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd},
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, getsockopt, setsockopt, socket, sockopt,
};
use pnet::datalink::{self, Channel, ChannelType, DataLinkReceiver, NetworkInterface};
use thiserror::Error;

use super::link::LinkType;
use crate::attach::device::{Device, Layer};

/// Bytes of packets that wait in the kernel for this process. A burst of some ten thousand packets.
const BUFFER: usize = 32 << 20;
/// Longer packets, as a card's or the kernel's own super-packets (BIG TCP), are cut.
const LONGEST: usize = 256 << 10;

/// Why a device's packets cannot be read.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// No device of this name.
    #[error("no such device in this network namespace: {name}; it has {there}")]
    NoSuchDevice {
        /// The name.
        name: String,
        /// The devices that there are.
        there: String,
    },
    /// The process may not.
    #[error(
        "{device}: reading its packets takes CAP_NET_RAW: run as root, or give the program the \
         capability (`setcap cap_net_raw+ep`)"
    )]
    NotPermitted {
        /// The device.
        device: String,
    },
    /// Neither Ethernet nor IP.
    #[error("{device}: its packets start with neither Ethernet nor IP (ARPHRD type {arphrd})")]
    UnknownLayer {
        /// The device.
        device: String,
        /// The `ARPHRD_*` number.
        arphrd: u16,
    },
    /// Anything else that the kernel says.
    #[error("{device}: {error}")]
    Io {
        /// The device.
        device: String,
        /// The kernel's words.
        error: io::Error,
    },
}

/// What the kernel counted since the capture began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounts {
    /// Packets that passed the device.
    pub passed: u64,
    /// Of them, those lost because this process did not read fast enough.
    pub lost: u64,
}

/// A device whose packets are read.
pub struct DeviceCapture {
    device: String,
    receiver: Box<dyn DataLinkReceiver>,
    /// The same socket, for its counters.
    socket: OwnedFd,
    link: LinkType,
    counts: SocketCounts,
}

impl DeviceCapture {
    /// Opens the device of this name, one of `devices`. Reading waits for `wait` at most.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn open(
        devices: &[Device],
        name: &str,
        promiscuous: bool,
        wait: Duration,
    ) -> Result<Self, DeviceError> {
        let (device, interface) = find(devices, name)?;
        let link = match device.layer {
            Layer::Ethernet => LinkType::ETHERNET,
            Layer::Ip => LinkType::RAW,
            Layer::Other(arphrd) => {
                return Err(DeviceError::UnknownLayer { device: name.to_owned(), arphrd });
            }
        };
        let refused = |error: io::Error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                DeviceError::NotPermitted { device: name.to_owned() }
            }
            _ => DeviceError::Io { device: name.to_owned(), error },
        };
        let (socket, counters) = packet_socket(&interface).map_err(refused)?;
        let config = datalink::Config {
            socket_fd: Some(socket.into_raw_fd()),
            channel_type: ChannelType::Layer2,
            promiscuous,
            read_buffer_size: LONGEST,
            read_timeout: Some(wait),
            ..datalink::Config::default()
        };
        match datalink::channel(&interface, config).map_err(refused)? {
            Channel::Ethernet(_, receiver) => Ok(Self {
                device: name.to_owned(),
                receiver,
                socket: counters,
                link,
                counts: SocketCounts::default(),
            }),
            _ => Err(refused(ErrorKind::Unsupported.into())),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.device
    }

    /// What its packets begin with.
    pub fn link(&self) -> LinkType {
        self.link
    }

    /// The next packet; `None` if there was none in time, or a signal came.
    ///
    /// # Errors
    /// When the device has gone down.
    pub fn next_packet(&mut self) -> Result<Option<&[u8]>, DeviceError> {
        match self.receiver.next() {
            Ok(packet) => Ok(Some(packet)),
            Err(error) => match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
                // What the socket says is better than pnet's "unexpected poll event".
                _ => {
                    let error = match getsockopt(&self.socket, sockopt::SocketError) {
                        Ok(code) if code != 0 => io::Error::from_raw_os_error(code),
                        _ => error,
                    };
                    Err(DeviceError::Io { device: self.device.clone(), error })
                }
            },
        }
    }

    /// What the kernel has counted so far.
    pub fn counts(&mut self) -> SocketCounts {
        // Asking sets the kernel's own counters back to 0.
        if let Ok(new) = statistics(&self.socket) {
            self.counts.passed += u64::from(new.tp_packets);
            self.counts.lost += u64::from(new.tp_drops);
        }
        self.counts
    }
}

fn find<'d>(
    devices: &'d [Device],
    name: &str,
) -> Result<(&'d Device, NetworkInterface), DeviceError> {
    let device = devices.iter().find(|device| device.name == name);
    let interface = datalink::interfaces().into_iter().find(|interface| interface.name == name);
    device.zip(interface).ok_or_else(|| DeviceError::NoSuchDevice {
        // As it was given: it may hold anything.
        name: name.escape_debug().to_string(),
        there: devices.iter().map(|device| &*device.name).collect::<Vec<_>>().join(", "),
    })
}

/// A socket that hears nothing yet, because it is not bound: so no packet of another device is in
/// its buffer. Twice, the second for its counters.
fn packet_socket(interface: &NetworkInterface) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    // More than the system's limit only with CAP_NET_ADMIN.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    }
    if interface.is_loopback() {
        // What it sends it receives: each packet would come twice. Linux 4.20; before, it does.
        let _ = ignore_outgoing(&socket);
    }
    let counters = socket.try_clone()?;
    Ok((socket, counters))
}

/// `PACKET_STATISTICS` of packet(7). The kernel's counters are at 0 afterwards.
fn statistics(socket: &OwnedFd) -> io::Result<libc::tpacket_stats> {
    let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut size = size_of_val(&counts) as libc::socklen_t;
    // SAFETY: the kernel writes `size` bytes at most, and `counts` has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut counts).cast(),
            &raw mut size,
        )
    };
    if result == 0 { Ok(counts) } else { Err(io::Error::last_os_error()) }
}

/// `PACKET_IGNORE_OUTGOING` of packet(7).
fn ignore_outgoing(socket: &OwnedFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the kernel reads the four bytes of `yes`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
