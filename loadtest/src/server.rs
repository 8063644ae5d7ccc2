//! A server that is started for a load test or a bench.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::child_process::ChildProcess;
use crate::error::{Error, StartError};
use crate::process_usage::ProcessUsage;

/// The longest time that [`wait_until`] waits, and the pause between its checks.
const TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// A running `keywright serve`, killed when it is dropped.
pub struct Server {
    process: ChildProcess,
    /// Where it serves HTTP.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server on a free loopback port, on these CPU cores if some are named and with these environment variables, and waits
    /// until it listens.
    ///
    /// # Errors
    /// It does not start; standard error has the reason.
    pub fn start(
        binary: &Path,
        data: &Path,
        cores: Option<&str>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self, StartError> {
        let mut command = on_cores(binary, cores);
        command.envs(variables.iter().copied());
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error"])
            .arg("--data")
            .arg(data)
            .args(arguments);
        Self::run(command)
    }

    /// Starts another program with these arguments that prints its address as Keywright does.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_program(
        binary: &Path,
        cores: Option<&str>,
        arguments: &[&str],
    ) -> Result<Self, StartError> {
        let mut command = on_cores(binary, cores);
        command.args(arguments);
        Self::run(command)
    }

    fn run(mut command: Command) -> Result<Self, StartError> {
        let is_ready = |banner: &str| address_in(banner).is_some();
        let (process, banner) = ChildProcess::start_until_ready(&mut command, None, is_ready)?;
        let address = address_in(&banner).expect("the process is ready");
        Ok(Self { process, address })
    }

    /// Waits until a `GET` of this path, with one more header line, has one of these statuses.
    ///
    /// # Errors
    /// It has another status, or no answer, for ten seconds.
    pub fn wait_for(&self, path: &str, header: &str, statuses: &[u16]) -> Result<(), Error> {
        let failure = format_args!("{path} does not answer {statuses:?} within {TIMEOUT:?}");
        let is_expected = |status| statuses.contains(&status);
        wait_until(failure, || self.status(path, header).is_ok_and(is_expected))
    }

    // Blocking, because callers wait before a runtime measures anything.
    fn status(&self, path: &str, header: &str) -> std::io::Result<u16> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: keywright\r\nConnection: close\r\n{header}\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        status.ok_or_else(|| std::io::Error::other("no status"))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// CPU time and memory of the process.
    ///
    /// # Errors
    /// The process has ended.
    pub fn usage(&self) -> Result<ProcessUsage, Error> {
        self.process.usage()
    }
}

/// Waits until `is_done` returns true, for ten seconds at most. `failure` is the text of the error after that.
pub(crate) fn wait_until(failure: impl Display, is_done: impl Fn() -> bool) -> Result<(), Error> {
    for _ in 0..TIMEOUT.as_millis() / PAUSE.as_millis() {
        if is_done() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::Service(failure.to_string()))
}

/// The first address that a program has printed as a URL at the end of a line.
fn address_in(banner: &str) -> Option<SocketAddr> {
    let mut lines = banner.lines();
    lines.find_map(|line| line.split("http://").nth(1)?.trim().parse().ok())
}

fn on_cores(binary: &Path, cores: Option<&str>) -> Command {
    match cores {
        None => Command::new(binary),
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cores]).arg(binary);
            command
        }
    }
}
