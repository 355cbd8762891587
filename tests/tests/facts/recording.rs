//! A capture of what passes a namespace's loopback.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use tempfile::TempDir;
use testbed::{app::App, client::Client, netns::Netns, process::Process, wait};

const LIMIT: Duration = Duration::from_secs(60);
/// The request that says that everything before it is in the file.
const LAST: &str = "/the-end-of-the-recording";

/// dumpcap at work.
pub(crate) struct Running {
    dumpcap: Process,
    directory: TempDir,
}

/// A finished capture.
pub(crate) struct Recording {
    directory: TempDir,
}

impl Recording {
    /// Begins to record.
    pub(crate) fn start(namespace: &Netns) -> Result<Running> {
        let directory = TempDir::new()?;
        let mut command = namespace.command("dumpcap");
        command.args(["-i", "lo", "-P", "-w"]).arg(directory.path().join("lo.pcap"));
        let dumpcap = Process::spawn("dumpcap", command)?;
        dumpcap.wait_for_line(LIMIT, |line| line.starts_with("File:"))?;
        Ok(Running { dumpcap, directory })
    }

    /// The file.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        file(self.directory.path())
    }
}

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("lo.pcap")
}

impl Running {
    /// Waits until all that has passed is in the file.
    pub(crate) fn stop(mut self, namespace: &Netns) -> Result<Recording> {
        let address: SocketAddr = "127.0.0.1:8099".parse()?;
        let _application = App::start(namespace.listen(address)?)?;
        Client::over(namespace.connect(None, address)?)?.get(LAST)?;
        let file = file(self.directory.path());
        wait::until("the whole recording", LIMIT, || {
            let bytes = fs::read(&file)?;
            let there = bytes.windows(LAST.len()).any(|bytes| bytes == LAST.as_bytes());
            Ok(there.then_some(()))
        })?;
        self.dumpcap.terminate(LIMIT)?;
        Ok(Recording { directory: self.directory })
    }
}
