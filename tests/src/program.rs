//! The program as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::client::Request;
use crate::shadows::Shadows;

/// glibc's heap is many, one for each thread that allocates while others do, and each fills up at its own pace. With
/// two of them the memory of a process says what the program needs.
pub(crate) const FEW_ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// A running program, killed when it is dropped.
pub struct Program {
    child: Child,
    /// Where it serves HTTP.
    pub address: SocketAddr,
    /// The demo user's token.
    pub token: String,
    /// The demo organization's API key.
    pub api_key: String,
    /// What it printed when it had started.
    pub banner: String,
    log: NamedTempFile,
    /// Others that serve the same, and the locks that they serve.
    others: Vec<Program>,
    shadows: Option<Shadows>,
}

impl Program {
    /// Starts it on a free port over the data in `folder`, and waits until it says that it has started.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(binary: &str, folder: &Path, arguments: &[&str]) -> Self {
        Self::start_in(binary, Path::new("."), folder, arguments)
    }

    /// As [`Program::start`], from a folder of work that may hold a file of settings.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_in(binary: &str, work: &Path, folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(binary, work, folder, arguments, &[])
    }

    /// As [`Program::start_in`], with these variables.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_with(
        binary: &str,
        work: &Path,
        folder: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        // A file, because what was logged before an answer stands in it when the answer is there.
        let log = NamedTempFile::new().expect("a file");
        let mut child = command(binary, folder, arguments)
            .envs(variables.iter().copied())
            .envs([FEW_ARENAS])
            .current_dir(work)
            .stderr(log.reopen().expect("the file"))
            .spawn()
            .expect("the program is there");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut banner = String::new();
        while !banner.contains("curl ") && !banner.contains("Add locks with") {
            let mut line = String::new();
            if stdout.read_line(&mut line).expect("text") == 0 {
                let _ = child.wait();
                panic!("it did not start: {banner}{}", read(&log));
            }
            banner.push_str(&line);
        }
        let url = banner
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http://"));
        let address = url.expect("an address").parse().expect("an address");
        // Without the sandbox there are none.
        let env = std::fs::read_to_string(folder.join("sandbox.env")).unwrap_or_default();
        let value = |name: &str| {
            let line = env.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or_default().to_owned()
        };
        Self {
            child,
            address,
            token: value("KEYWRIGHT_TOKEN="),
            api_key: value("KEYWRIGHT_API_KEY="),
            banner,
            log,
            others: Vec::new(),
            shadows: None,
        }
    }

    /// From now on requests go to `address`, behind which this program and `others` serve them, with locks on these
    /// shadows.
    #[must_use]
    pub fn behind(mut self, address: SocketAddr, others: Vec<Program>, shadows: Shadows) -> Self {
        self.address = address;
        self.others = others;
        self.shadows = Some(shadows);
        self
    }

    /// Runs it where it is expected to end by itself: its exit code and what it says on standard error.
    ///
    /// # Panics
    /// It cannot be run.
    pub fn fail(binary: &str, folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
        let output = command(binary, folder, arguments)
            .output()
            .expect("the program is there");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    }

    /// What it has logged up to now, and all that is part of it, by the time.
    pub fn log(&self) -> String {
        let own = read(&self.log);
        let others = self.others.iter().map(Program::log);
        let others: String = others
            .chain(self.shadows.iter().map(Shadows::log))
            .collect();
        let mut lines: Vec<&str> = own.lines().chain(others.lines()).collect();
        if !others.is_empty() {
            // Each line starts with its moment.
            lines.sort();
        }
        lines.join("\n")
    }

    /// How it has ended, if it has.
    ///
    /// # Panics
    /// The system does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the system says")
    }

    /// A request with the demo user's token.
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

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The kilobytes of memory that the process has now.
    pub fn resident(&self) -> u64 {
        resident(self.child.id())
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// It has been killed before.
    pub fn kill(mut self) {
        self.child.kill().expect("it is running");
        self.child.wait().expect("it has ended");
    }

    /// SIGKILL, for a program that is to be replaced later.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn kill_only(&mut self) {
        self.child.kill().expect("it is running");
        self.child.wait().expect("it has ended");
    }

    /// SIGTERM, and the wait for its end.
    ///
    /// # Panics
    /// It cannot be told.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.terminate();
        let status = self.child.wait().expect("it has ended");
        (status, self.log())
    }

    /// SIGTERM.
    ///
    /// # Panics
    /// It cannot be told.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// A signal by its name without `SIG`.
    ///
    /// # Panics
    /// It cannot be told.
    pub fn signal(&self, name: &str) {
        let (pid, signal) = (self.child.id().to_string(), format!("-{name}"));
        let told = Command::new("kill").args([&signal, &pid]).status();
        assert!(told.expect("kill is there").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(binary: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if is_server(arguments) && !arguments.contains(&"--drain-delay") {
        // No balancer has to notice that a test's server stops.
        command.args(["--drain-delay", "0s"]);
    }
    command
        .arg("--data")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Options alone are those of the server; `check-config` and `audit` have the same ones.
fn is_server(arguments: &[&str]) -> bool {
    let first = arguments.first().copied().unwrap_or("serve");
    first.starts_with("--") || first == "serve"
}

/// `VmRSS` of a process, in kilobytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).expect("a number")
}

fn read(log: &NamedTempFile) -> String {
    let bytes = std::fs::read(log.path()).expect("the log is read");
    String::from_utf8_lossy(&bytes).into_owned()
}
