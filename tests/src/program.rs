//! The program under test as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};

use keywright_loadtest::child_process::ChildProcess;
use keywright_loadtest::population::sandbox_variable;
use serde_json::Value;

use crate::client::Request;
use crate::process_log::{MALLOC_ARENAS, ProcessLog};
use crate::shadow_service::Shadows;

/// A running server, killed when it is dropped.
pub struct Program {
    process: ChildProcess,
    /// Where it serves HTTP.
    pub address: SocketAddr,
    /// The demo user's token; empty without the sandbox.
    pub token: String,
    /// The demo organization's API key; empty without the sandbox.
    pub api_key: String,
    /// What it printed on standard output at its start.
    pub banner: String,
    log: ProcessLog,
    /// Other replicas and the shadow service, whose logs belong to this one's.
    replicas: Vec<Program>,
    shadows: Option<Shadows>,
}

impl Program {
    /// Starts a server on a free port with this data folder, and waits until it is started.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(binary: &str, data: &Path, arguments: &[&str]) -> Self {
        Self::start_in(binary, Path::new("."), data, arguments)
    }

    /// As [`Program::start`], in a working directory that may contain a settings file.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_in(
        binary: &str,
        working_directory: &Path,
        data: &Path,
        arguments: &[&str],
    ) -> Self {
        Self::start_with(binary, working_directory, data, arguments, &[])
    }

    /// As [`Program::start_in`], with these environment variables.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_with(
        binary: &str,
        working_directory: &Path,
        data: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let log = ProcessLog::new();
        let mut command = command(binary, data, arguments);
        command
            .envs(variables.iter().copied())
            .envs([MALLOC_ARENAS])
            .current_dir(working_directory);
        let is_ready = |banner: &str| banner.contains("curl ") || banner.contains("Add locks with");
        let outcome = ChildProcess::start_until_ready(&mut command, Some(log.file()), is_ready);
        let (process, banner) = outcome.unwrap_or_else(|e| panic!("{e}{}", log.text()));
        let url = banner
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http://"));
        let address = url.expect("a URL").parse().expect("an address");
        let variable = |name| sandbox_variable(data, name).unwrap_or_default();
        Self {
            process,
            address,
            token: variable("KEYWRIGHT_TOKEN"),
            api_key: variable("KEYWRIGHT_API_KEY"),
            banner,
            log,
            replicas: Vec::new(),
            shadows: None,
        }
    }

    /// Sends requests from now on to the proxy at `address`, which forwards them to this server and the other replicas.
    #[must_use]
    pub fn behind(mut self, address: SocketAddr, others: Vec<Program>, shadows: Shadows) -> Self {
        self.address = address;
        self.replicas = others;
        self.shadows = Some(shadows);
        self
    }

    /// Runs a command that is expected to end. Returns its exit code and standard error.
    ///
    /// # Panics
    /// It cannot be run.
    pub fn fail(binary: &str, data: &Path, arguments: &[&str]) -> (Option<i32>, String) {
        let output = command(binary, data, arguments)
            .output()
            .expect("the program is there");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    }

    /// The log so far, merged by time with those of the other replicas and the shadow service.
    pub fn log(&self) -> String {
        let own = self.log.text();
        let others = self.replicas.iter().map(Program::log);
        let others: String = others
            .chain(self.shadows.iter().map(Shadows::log))
            .collect();
        let mut lines: Vec<&str> = own.lines().chain(others.lines()).collect();
        if !others.is_empty() {
            // Each line starts with its time.
            lines.sort();
        }
        lines.join("\n")
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait()
    }

    /// A `GET` with the demo user's token.
    pub fn get(&self, path: &str) -> Request {
        self.request("GET", path).bearer(&self.token)
    }

    /// A request to write a key, with the demo user's token.
    pub fn write_key(&self, lock: u64, body: &Value) -> Request {
        self.request("POST", &format!("/locks/{lock}/WriteKey"))
            .bearer(&self.token)
            .json(body)
    }

    /// A request without credentials.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.address, method, path)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The resident memory of the process, in KiB.
    ///
    /// # Panics
    /// The process has ended.
    pub fn resident_kib(&self) -> u64 {
        self.process.usage().expect("it is running").resident_bytes / 1024
    }

    /// Kills the process (SIGKILL).
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Kills the process (SIGKILL), and keeps its log and its address.
    pub fn kill_only(&mut self) {
        self.process.kill();
    }

    /// Stops the server (SIGTERM), and waits for its end. Returns its exit status and its log.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.terminate();
        let status = self.process.wait();
        (status, self.log())
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, named without `SIG`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }
}

fn command(binary: &str, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if is_server(arguments) && !arguments.contains(&"--drain-delay") {
        // There is no load balancer that has to notice the shutdown.
        command.args(["--drain-delay", "0s"]);
    }
    command.arg("--data").arg(data).args(arguments);
    command
}

/// Whether the arguments are those of `serve`, which is also the default command.
fn is_server(arguments: &[&str]) -> bool {
    let first = arguments.first().copied().unwrap_or("serve");
    first.starts_with("--") || first == "serve"
}
