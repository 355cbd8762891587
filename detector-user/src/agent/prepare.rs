//! Everything that takes privileges, before there is a second thread: kernel programs, rule tables,
//! pins, the first attachment.

use std::{net::TcpListener, path::Path};

use anyhow::Context as _;

use super::{
    handover::{HandoverNotes, ReaderNotes},
    pins,
    reader::Readable,
    reload::Reloader,
    say, sinks,
};
use crate::{
    admin::socket::{ControlSocket, DEFAULT_PATH, SocketError},
    attach::Attacher,
    config::Config,
    source::{
        kernel::{Kernel, KernelLimits, KernelLog, Notes, PacketCounters},
        ring_notes::RingNotes,
        rule_notes::GenerationNotes,
    },
};

/// What the agent works with.
pub(super) struct Prepared {
    /// For metrics and health.
    pub(super) listener: TcpListener,
    /// The same for root.
    pub(super) control: Option<ControlSocket>,
    pub(super) kernel: Tables,
    pub(super) reloader: Reloader,
    pub(super) attacher: Attacher,
}

/// The kernel's tables but those of rules, which are the reloader's.
pub(super) struct Tables {
    pub(super) read: Readable,
    pub(super) counters: PacketCounters,
    pub(super) log: Option<KernelLog>,
}

impl Prepared {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        sinks::check(config)?;
        let listener = TcpListener::bind(config.admin.listen)
            .with_context(|| format!("admin server: cannot listen on {}", config.admin.listen))?;
        listener.set_nonblocking(true)?;
        let limits = KernelLimits {
            sessions: config.limits.sessions,
            flows: config.limits.flows,
            ring_bytes: config.limits.ring_bytes,
            wake_holdoff_ns: None,
        };
        let pins = config.pin.as_deref().map(|path| pins::open(path, &limits)).transpose()?;
        let kernel = match &pins {
            Some(pins) => Kernel::load_pinned(limits, pins)?,
            None => Kernel::load(limits)?,
        };
        let control = control(config.admin.socket.as_deref())?;
        let Kernel { ebpf, rules, sessions, counters, ring, mut notes, log } = kernel;
        let pools = config.ue_pools.iter().map(|pool| pool.cidr).collect();
        if let Some((pins, notes)) = pins.as_ref().zip(notes.as_mut()) {
            pins::adopt(pins, notes)?;
        }
        let (generations, mut ring_notes, notes) = match notes.map(split) {
            Some((generations, ring, reader)) => (Some(generations), Some(ring), Some(reader)),
            None => (None, None, None),
        };
        let reloader = Reloader::start(config.rules.clone(), pools, rules, generations)?;
        let mut attacher = Attacher::new(ebpf, config.devices.clone())?;
        if let Some(pins) = pins {
            attacher = attacher.with_pins(pins);
        }
        attach(&mut attacher)?;
        let inherited = pins::sweep(&attacher, ring, ring_notes.as_mut());
        let kernel = Tables { read: Readable { inherited, sessions, notes }, counters, log };
        Ok(Self { listener, control, kernel, reloader, attacher })
    }
}

/// Who keeps which.
fn split(notes: Notes) -> (GenerationNotes, RingNotes, ReaderNotes) {
    let Notes { sessions, clock, generations, reads, deep, flows, ring, devices } = notes;
    let handover = HandoverNotes { sessions, reads, deep, flows };
    (generations, ring, ReaderNotes { handover, clock, devices })
}

/// Where nobody has asked for it, an agent does without: a second one on this host, or one that is not
/// root.
fn control(path: Option<&Path>) -> Result<Option<ControlSocket>, SocketError> {
    match (path, ControlSocket::bind(path.unwrap_or(Path::new(DEFAULT_PATH)))) {
        (_, Ok(socket)) => Ok(Some(socket)),
        (Some(_), Err(error)) => Err(error),
        (None, Err(error)) => {
            let error = anyhow::Error::from(error);
            tracing::warn!("no control socket for `detector status`: {error:#}");
            Ok(None)
        }
    }
}

/// The first look at devices, on a runtime without threads.
fn attach(attacher: &mut Attacher) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    say(&runtime.block_on(attacher.reconcile())?);
    Ok(())
}
