//! `keywright shadow` and `keywright sandbox` as processes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::NamedTempFile;

/// Running shadows, killed when they are dropped.
pub struct Shadows {
    child: Child,
    /// Where REST is served, if it is.
    pub rest: Option<SocketAddr>,
    log: NamedTempFile,
}

impl Shadows {
    /// Starts them, and waits until they are served everywhere.
    ///
    /// # Panics
    /// They are not.
    pub fn start(binary: &str, command: &str, data: &Path, arguments: &[&str]) -> Self {
        let log = NamedTempFile::new().expect("a file");
        let mut child = Command::new(binary)
            .args([command, "--data"])
            .arg(data)
            .args(arguments)
            .envs([super::program::FEW_ARENAS])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.reopen().expect("the file"))
            .spawn()
            .expect("the program is there");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut banner = String::new();
        while !banner.contains("data ") {
            let mut line = String::new();
            if stdout.read_line(&mut line).expect("text") == 0 {
                let _ = child.wait();
                let log = std::fs::read_to_string(log.path()).expect("the log");
                panic!("they are not served: {banner}{log}");
            }
            banner.push_str(&line);
        }
        let rest = banner
            .split_whitespace()
            .find_map(|w| w.strip_prefix("http://"));
        let rest = rest.map(|address| address.parse().expect("an address"));
        Self { child, rest, log }
    }

    /// What was logged up to now.
    ///
    /// # Panics
    /// The log cannot be read.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("the log is read")
    }

    /// The exit status, if the process has ended.
    ///
    /// # Panics
    /// The system does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the system says")
    }

    /// The kilobytes of memory that the process has now.
    pub fn resident(&self) -> u64 {
        super::program::resident(self.child.id())
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// It is not running.
    pub fn kill(mut self) {
        self.child.kill().expect("it is running");
        self.child.wait().expect("it has ended");
    }
}

impl Drop for Shadows {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
