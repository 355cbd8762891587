//! A program as a child process: its lines as they come, and its end. It is ended (SIGTERM, then
//! SIGKILL, by its pid) when the value is dropped.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::prctl::set_pdeathsig,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Which output a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Called with every line, on the thread that reads it.
type Follow = dyn Fn(Output, &str) + Send + Sync;

/// How long after its end what a program still printed is waited for. Only a child of its own that
/// lives on with the same output makes this pass.
const LAST_LINES: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<(Output, String)>>,
    more: Condvar,
}

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Lines>,
    /// Each reads one output to its end.
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it with no standard input and keeps what it prints.
    ///
    /// It is ended also when the thread that calls this is gone, even by SIGKILL; and it does not
    /// get the terminal's Ctrl-C, because whoever started it decides when it ends.
    pub fn spawn(name: &str, command: Command) -> Result<Self> {
        Self::spawn_and_follow(name, command, |_, _| {})
    }

    /// As [`Process::spawn`], and hands every line to a function as it comes.
    pub fn spawn_and_follow(
        name: &str,
        mut command: Command,
        follow: impl Fn(Output, &str) + Send + Sync + 'static,
    ) -> Result<Self> {
        // SAFETY: between fork and exec only the system call prctl is made, no allocation.
        unsafe {
            command.pre_exec(|| set_pdeathsig(Signal::SIGTERM).map_err(std::io::Error::from));
        }
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name} ({:?})", command.get_program()))?;
        let lines = Arc::new(Lines::default());
        let follow: Arc<Follow> = Arc::new(follow);
        let outputs = (child.stdout.take(), child.stderr.take());
        let mut process = Self { name: name.to_owned(), child, lines, readers: Vec::new() };
        if let (Some(stdout), Some(stderr)) = outputs {
            process.read(Output::Stdout, stdout, &follow)?;
            process.read(Output::Stderr, stderr, &follow)?;
        }
        Ok(process)
    }

    fn read(
        &mut self,
        output: Output,
        pipe: impl Read + Send + 'static,
        follow: &Arc<Follow>,
    ) -> Result<()> {
        let (lines, follow) = (Arc::clone(&self.lines), Arc::clone(follow));
        let reader = std::thread::Builder::new().name(self.name.clone()).spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(|line| line.ok()) {
                follow(output, &line);
                lines.lines.lock().unwrap_or_else(PoisonError::into_inner).push((output, line));
                lines.more.notify_all();
            }
        })?;
        self.readers.push(reader);
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far.
    pub fn lines(&self, output: Output) -> Vec<String> {
        let lines = self.lines.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|(from, _)| *from == output).map(|(_, line)| line.clone()).collect()
    }

    /// Waits for a line (also one already printed) and returns it.
    pub fn wait_for_line(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let lines = self.lines.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, _) = self
            .lines
            .more
            .wait_timeout_while(lines, limit, |lines| !lines.iter().any(|(_, line)| wanted(line)))
            .unwrap_or_else(PoisonError::into_inner);
        match lines.iter().find(|(_, line)| wanted(line)) {
            Some((_, line)) => Ok(line.clone()),
            None => bail!("{}: no such line within {limit:?}\n{}", self.name, tail(&lines)),
        }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails with the last lines when it has ended, for loops that wait for something of it.
    pub fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended early ({status})\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// Its last lines, indented, for error messages.
    pub fn tail(&self) -> String {
        tail(&self.lines.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits for its end, and until all that it printed is read.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.read_last_lines();
                return Ok(status);
            }
            if begun.elapsed() >= limit {
                bail!("{} did not end within {limit:?}\n{}", self.name, self.tail());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn read_last_lines(&self) {
        let begun = Instant::now();
        while begun.elapsed() < LAST_LINES && !self.readers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(LOOK);
        }
    }

    /// SIGTERM, and its exit status; a failure if it does not end in time.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if self.terminate(Duration::from_secs(3)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn tail(lines: &[(Output, String)]) -> String {
    let begin = lines.len().saturating_sub(20);
    lines[begin..].iter().map(|(_, line)| format!("    | {line}\n")).collect()
}
