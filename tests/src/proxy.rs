//! Reverse proxies as processes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keywright_loadtest::child_process::ChildProcess;
use tempfile::TempDir;

/// A running reverse proxy, stopped when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    process: ChildProcess,
    _folder: TempDir,
}

impl Proxy {
    /// Starts `program` on a free port. `settings` returns the content of its settings file for this address and a temporary
    /// folder; the path of the file follows `arguments`.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(
        program: &str,
        arguments: &[&str],
        settings: impl Fn(SocketAddr, &Path) -> String,
    ) -> Self {
        // Another process may take the free port before the proxy does.
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("an address");
            drop(listener);
            let folder = TempDir::new().expect("a folder");
            let path = folder.path().join("proxy.conf");
            std::fs::write(&path, settings(address, folder.path())).expect("written");
            let mut proxy = Self {
                address,
                process: spawn(program, arguments, &path),
                _folder: folder,
            };
            if proxy.is_up() {
                return proxy;
            }
        }
        panic!("{program} does not start");
    }

    fn is_up(&mut self) -> bool {
        for _ in 0..500 {
            if self.process.try_wait().is_some() {
                return false;
            }
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

fn spawn(program: &str, arguments: &[&str], settings: &Path) -> ChildProcess {
    // Debian installs it in a folder that is only on root's PATH.
    let debian = Path::new("/usr/sbin").join(program);
    let found = match debian.exists() {
        true => debian,
        false => program.into(),
    };
    let mut command = Command::new(found);
    let process = ChildProcess::start(command.args(arguments).arg(settings));
    process.unwrap_or_else(|e| panic!("{e}; scripts/test installs {program}"))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM also ends its worker processes.
        if self.process.try_wait().is_none() {
            self.process.signal("TERM");
            self.process.wait();
        }
    }
}
