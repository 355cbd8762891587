//! Network namespaces that vanish with their value, and veth pairs between them. Needs root and
//! the `ip` program (iproute2).

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, SockAddr, Socket, Type};

/// All names begin with this and the process id of their maker.
const PREFIX: &str = "det";
const MOUNTS: &str = "/run/netns";

/// A named network namespace with its loopback up.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// A new namespace: `det<pid>-<label>`, or `det<pid>-<label>2` and so on when this process has
    /// had one of that label.
    pub fn new(label: &str) -> Result<Self> {
        static MADE: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let count = made.entry(label.to_owned()).or_default();
        *count += 1;
        let number = if *count == 1 { String::new() } else { count.to_string() };
        drop(made);
        Self::create(format!("{PREFIX}{}-{label}{number}", std::process::id()))
    }

    fn create(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let path = path(&name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()));
        let file = file.inspect_err(|_| delete(&name))?;
        let namespace = Self { name, file };
        namespace.ip("link set lo up")?;
        // Addresses are usable at once: nobody else is on these links.
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_ra", "0")?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec` and `nsenter --net=/run/netns/<name>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip -n <this> <words>`, e.g. `addr add 10.60.0.1/24 dev n3`.
    pub fn ip(&self, words: &str) -> Result<()> {
        let mut args = vec!["-n", self.name.as_str()];
        args.extend(words.split_whitespace());
        ip(&args)
    }

    /// Sets a value below `/proc/sys`, as this namespace sees it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        self.enter(|| std::fs::write(&path, value))?
            .with_context(|| format!("cannot write {value} to {}", path.display()))
    }

    /// Lets it route packets between its devices, as a UPF does.
    pub fn enable_forwarding(&self) -> Result<()> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Does something inside: the work runs on a thread of its own, because entering a namespace is
    /// for the life of a thread. Sockets made there stay in the namespace wherever they are used.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter namespace {}", self.name))?;
                Ok(work())
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A command that will run inside. Unlike `ip netns exec` this leaves the mounts alone, so that
    /// `/sys/fs/bpf` stays visible.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = self.file.as_raw_fd();
        let enter = move || {
            // SAFETY: the descriptor is open in the child too (close-on-exec acts later); it is
            // only borrowed for this call.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(namespace) };
            setns(fd, CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
        };
        // SAFETY: between fork and exec only the system call setns is made, no allocation. If this
        // value is gone before the command is spawned, setns fails and so does the spawn.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// A listening TCP socket inside.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        self.enter(|| TcpListener::bind(address))?
            .with_context(|| format!("cannot listen on {address} in {}", self.name))
    }

    /// A TCP connection from inside, from the given source address.
    pub fn connect(&self, from: Option<IpAddr>, to: SocketAddr) -> Result<TcpStream> {
        self.enter(|| connect(from, to))?
            .with_context(|| format!("cannot connect to {to} from {}", self.name))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Makes a veth pair, one end in each namespace, both up.
pub fn veth(
    (left, left_device): (&Netns, &str),
    (right, right_device): (&Netns, &str),
) -> Result<()> {
    ip(&[
        "link",
        "add",
        left_device,
        "netns",
        &left.name,
        "type",
        "veth",
        "peer",
        "name",
        right_device,
        "netns",
        &right.name,
    ])?;
    left.ip(&format!("link set {left_device} up"))?;
    right.ip(&format!("link set {right_device} up"))
}

/// Deletes namespaces of makers that were killed before they could, and says which.
pub fn sweep() -> Vec<String> {
    let Ok(entries) = Path::new(MOUNTS).read_dir() else { return Vec::new() };
    let orphans: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| maker(name).is_some_and(|pid| !Path::new("/proc").join(pid).exists()))
        .collect();
    orphans.iter().for_each(|name| delete(name));
    orphans
}

/// The process id in a name that [`Netns`] gave.
fn maker(name: &str) -> Option<&str> {
    let (pid, _label) = name.strip_prefix(PREFIX)?.split_once('-')?;
    pid.bytes().all(|byte| byte.is_ascii_digit()).then_some(pid)
}

/// A TCP connection from the given source address.
pub fn connect(from: Option<IpAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(from) = from {
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    }
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}

fn path(name: &str) -> PathBuf {
    Path::new(MOUNTS).join(name)
}

fn delete(name: &str) {
    // Best effort, and quiet: on a failing path the first error is the one to read.
    let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
}

fn ip(args: &[&str]) -> Result<()> {
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `ip` (Debian package iproute2)")?;
    let mut message = String::new();
    if let Some(stderr) = child.stderr.as_mut() {
        stderr.read_to_string(&mut message)?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`ip {}` failed: {}", args.join(" "), message.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::maker;

    #[test]
    fn only_names_given_here_have_a_maker() {
        assert_eq!(maker("det123-ue2"), Some("123"));
        assert_eq!(maker("det123-ue"), Some("123"));
        assert_eq!(maker("detour-ue"), None);
        assert_eq!(maker("gtp-ue"), None);
    }
}
