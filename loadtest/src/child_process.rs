//! Child processes of load tests, benches and end-to-end tests.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::error::{Error, StartError};
use crate::process_usage::ProcessUsage;

/// The longest time that a process may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A child process, killed when it is dropped.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
}

impl ChildProcess {
    /// Starts a process without input and output.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn start(command: &mut Command) -> Result<Self, StartError> {
        Self::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Starts a process, and reads its standard output until `is_ready` holds for the text so far, which is returned.
    /// Standard error goes to `log`, or to that of this process.
    ///
    /// # Errors
    /// The program cannot be run, ends, or is not ready within a minute.
    pub fn start_until_ready(
        command: &mut Command,
        log: Option<File>,
        is_ready: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<(Self, String), StartError> {
        if let Some(log) = log {
            command.stderr(log);
        }
        let mut process = Self::spawn(command.stdout(Stdio::piped()))?;
        let stdout = process.child.stdout.take().expect("stdout is piped");
        let (tx, rx) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stdout, mut banner) = (BufReader::new(stdout), String::new());
            let mut is_open = true;
            while is_open && !is_ready(&banner) {
                is_open = stdout.read_line(&mut banner).is_ok_and(|read| read > 0);
            }
            // The receiver is gone after the timeout.
            let _ = tx.send((banner, is_open));
        });
        match rx.recv_timeout(START_TIMEOUT) {
            Ok((banner, true)) => Ok((process, banner)),
            outcome => Err(StartError::NotReady {
                program: program(command),
                banner: outcome.map(|(banner, _)| banner).unwrap_or_default(),
            }),
        }
    }

    fn spawn(command: &mut Command) -> Result<Self, StartError> {
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.map_err(|source| StartError::Spawn {
            program: program(command),
            source,
        })?;
        Ok(Self { child })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time and memory of the process.
    ///
    /// # Errors
    /// The process has ended.
    pub fn usage(&self) -> Result<ProcessUsage, Error> {
        ProcessUsage::read(self.child.id())
    }

    /// The exit status, if the process has ended.
    ///
    /// # Panics
    /// The operating system does not return it.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    /// The operating system does not return the exit status.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the child can be waited for")
    }

    /// Kills the process (SIGKILL), and waits for its end.
    ///
    /// # Panics
    /// The process cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child can be killed");
        self.wait();
    }

    /// Sends a signal, named without `SIG`.
    ///
    /// # Panics
    /// The signal cannot be sent.
    pub fn signal(&self, name: &str) {
        let arguments = [format!("-{name}"), self.id().to_string()];
        let status = Command::new("kill").args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "kill failed");
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
