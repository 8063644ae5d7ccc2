//! A server of the load test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::process_usage::ProcessUsage;

/// How long a server is waited for, and how often it is asked meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// A running `keywright`, killed when it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts it on a free port of loopback, on these cores where some are named, and waits until it serves.
    ///
    /// # Errors
    /// It does not start; it has said why on standard error.
    pub fn start(
        binary: &Path,
        data: &Path,
        cores: Option<&str>,
        arguments: &[&str],
    ) -> Result<Self, String> {
        Self::start_with(binary, data, cores, arguments, &[])
    }

    /// As [`Server::start`], with these variables.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(
        binary: &Path,
        data: &Path,
        cores: Option<&str>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self, String> {
        let mut command = on_cores(binary, cores);
        command.envs(variables.iter().copied());
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log-level", "error"])
            .arg("--data")
            .arg(data)
            .args(arguments);
        Self::run(command, binary)
    }

    /// Another program that says where it is as Keywright does.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_plain(binary: &Path, cores: Option<&str>) -> Result<Self, String> {
        Self::run(on_cores(binary, cores), binary)
    }

    fn run(mut command: Command, binary: &Path) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", binary.display()))?;
        let stdout = child.stdout.take().ok_or("it has no output")?;
        let (tell, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let address = lines.find_map(|line| line.split("http://").nth(1)?.trim().parse().ok());
            // From here on it says nothing more there; whoever started it may have given up.
            let _ = address.map(|address| tell.send(address));
        });
        match said.recv_timeout(START) {
            Ok(address) => Ok(Self { child, address }),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("{} did not start", binary.display()))
            }
        }
    }

    /// Waits until a `GET` of this path, with this header besides, has one of these statuses.
    ///
    /// # Errors
    /// It has not within ten seconds.
    pub fn wait_for(&self, path: &str, header: &str, statuses: &[u16]) -> Result<(), String> {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            let status = self.status(path, header);
            if status.is_ok_and(|status| statuses.contains(&status)) {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err(format!(
            "{path} does not answer {statuses:?} within {PATIENCE:?}"
        ))
    }

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

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The seconds of CPU that it has used.
    ///
    /// # Errors
    /// It does not run any more.
    pub fn cpu_seconds(&self) -> Result<f64, String> {
        ProcessUsage::read(self.child.id()).map(|usage| usage.cpu_seconds)
    }
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

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
