//! What listens: the agent's control socket, and the local Broker.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use detector_user::{
    admin::{Admin, Readiness, StatusProvider, socket::ControlSocket},
    broker::{Broker, Config, Reporter, Timeouts, manifest::Manifests, topology::Topology},
    cpu_budget::CpuBudget,
    metrics::Metrics,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Nothing that was asked takes so long, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(8);

/// Whatever is sent to the control socket, it answers as HTTP does or hangs up, and goes on serving.
pub(crate) fn control_socket(bytes: &[u8]) {
    static SOCKET: OnceLock<PathBuf> = OnceLock::new();
    let path = SOCKET.get_or_init(|| started(serve_control_socket()));
    let connect = || {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(LIMIT)).map(|()| stream)
    };
    let hang_up = |stream: &UnixStream| stream.shutdown(Shutdown::Write);
    check(
        &connect().and_then(|to| answer(to, bytes, hang_up)),
        &[200, 400, 404, 405, 414, 431, 503, 505],
    );
    let health = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let alive = connect().and_then(|to| answer(to, health, |_| Ok(())));
    assert_eq!(status(&alive.expect("it serves")), Some(200));
}

async fn serve_control_socket() -> PathBuf {
    let directory = std::env::temp_dir().join(format!("detector-fuzz-{}", std::process::id()));
    let path = directory.join("detector.sock");
    let listener = ControlSocket::bind(&path).expect("a socket").listen().expect("a runtime");
    let status: StatusProvider = Arc::new(|| serde_json::json!({"sessions": 3}));
    let readiness = Readiness::requiring(["rules"]);
    let admin = Admin::new(Metrics::new(), readiness, status, CpuBudget::default());
    admin.start(listener, CancellationToken::new());
    path
}

/// Whatever is sent to the Broker, it takes it, refuses it as Knative's ingress does, or hangs up.
pub(crate) fn broker(bytes: &[u8]) {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    let address = ADDRESS.get_or_init(|| started(serve_broker()));
    let connect = || {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LIMIT)).map(|()| stream)
    };
    let hang_up = |stream: &TcpStream| stream.shutdown(Shutdown::Write);
    check(
        &connect().and_then(|to| answer(to, bytes, hang_up)),
        &[200, 202, 400, 404, 405, 414, 431, 500, 505],
    );
    let event = b"POST /edge/default HTTP/1.1\r\nhost: a\r\nconnection: close\r\nce-id: 1\r\n\
        ce-specversion: 1.0\r\nce-type: t\r\nce-source: /s\r\ncontent-length: 0\r\n\r\n";
    let alive = connect().and_then(|to| answer(to, event, |_| Ok(())));
    assert_eq!(status(&alive.expect("it serves")), Some(202));
}

async fn serve_broker() -> SocketAddr {
    const BROKER: &str = "apiVersion: eventing.knative.dev/v1\nkind: Broker\n\
        metadata: {name: default, namespace: edge}\n";
    let mut manifests = Manifests::default();
    manifests.add(Path::new("broker.yaml"), BROKER).expect("a manifest");
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        topology: Topology::new(manifests, &[]).expect("fits together"),
        reporter: Reporter::new(|_| {}),
        timeouts: Timeouts::default(),
    };
    let broker = Broker::start(config).await.expect("starts");
    let address = broker.addr;
    // Dropped, it would stop.
    std::mem::forget(broker);
    address
}

/// Starts a server, which goes on for as long as the process does.
fn started<T>(server: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("a runtime")
    });
    runtime.block_on(server)
}

/// Everything that is answered. The server may hang up before it has read all, and also without an
/// answer once the client has (`end`).
fn answer<S: Read + Write>(
    mut stream: S,
    bytes: &[u8],
    end: impl FnOnce(&S) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let _ = stream.write_all(bytes).and_then(|()| end(&stream));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        Ok(_) | Err(_) => Ok(answer),
    }
}

/// Nothing, or an answer with one of these.
fn check(answer: &io::Result<Vec<u8>>, statuses: &[u16]) {
    let answer = answer.as_ref().expect("an answer, or the end");
    if !answer.is_empty() {
        let found = status(answer).expect("an HTTP status line");
        assert!(statuses.contains(&found), "{}", String::from_utf8_lossy(answer));
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}
