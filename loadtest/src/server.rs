//! A server that is started for a load test or a bench.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::child_process::ChildProcess;
use crate::error::{Error, StartError};

/// The longest time that [`Server::wait_for`] waits, and the pause between its requests.
const TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// A running `keywright serve`, killed when it is dropped.
pub struct Server {
    process: ChildProcess,
    /// Where it serves HTTP.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server on a free loopback port, on these CPU cores if some are named, and waits until it listens.
    ///
    /// # Errors
    /// It does not start; standard error has the reason.
    pub fn start(
        binary: &Path,
        data: &Path,
        cores: Option<&str>,
        arguments: &[&str],
    ) -> Result<Self, StartError> {
        Self::start_with(binary, data, cores, arguments, &[])
    }

    /// As [`Server::start`], with these environment variables.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(
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

    /// Starts another program that prints its address as Keywright does.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_program(binary: &Path, cores: Option<&str>) -> Result<Self, StartError> {
        Self::run(on_cores(binary, cores))
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
        for _ in 0..TIMEOUT.as_millis() / PAUSE.as_millis() {
            let status = self.status(path, header);
            if status.is_ok_and(|status| statuses.contains(&status)) {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err(Error::Service(format!(
            "{path} does not answer {statuses:?} within {TIMEOUT:?}"
        )))
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

    /// The CPU time that the process has used, in seconds.
    ///
    /// # Errors
    /// The process has ended.
    pub fn cpu_seconds(&self) -> Result<f64, Error> {
        self.process.usage().map(|usage| usage.cpu_seconds)
    }

    /// The resident memory of the process, in bytes.
    ///
    /// # Errors
    /// The process has ended.
    pub fn resident_bytes(&self) -> Result<u64, Error> {
        self.process.usage().map(|usage| usage.resident_bytes)
    }
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
