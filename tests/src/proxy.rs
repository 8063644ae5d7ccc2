//! Starts a reverse proxy as a child process.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keywright_loadtest::child_process::ChildProcess;
use tempfile::TempDir;

/// A running reverse proxy, stopped when it is dropped.
pub struct Proxy {
    /// The address where it listens.
    pub address: SocketAddr,
    process: ChildProcess,
    _folder: TempDir,
}

impl Proxy {
    /// Starts `program`, a name or a path, on a free port. `settings(address, folder)` returns the text of the settings file. Its path is passed as
    /// the last argument.
    ///
    /// # Panics
    /// The proxy does not start.
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
            // Envoy takes the format of its settings from the file's extension; other proxies ignore it.
            let path = folder.path().join("proxy.yaml");
            std::fs::write(&path, settings(address, folder.path())).expect("written");
            let mut proxy = Self {
                address,
                process: spawn(program, arguments, &path),
                _folder: folder,
            };
            if proxy.wait_until_up() {
                return proxy;
            }
        }
        panic!("{program} does not start");
    }

    /// Whether the proxy accepts connections within five seconds.
    fn wait_until_up(&mut self) -> bool {
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
    // Debian installs reverse proxies in /usr/sbin, which is only on root's PATH.
    let sbin_path = Path::new("/usr/sbin").join(program);
    let found = match sbin_path.exists() {
        true => sbin_path,
        false => program.into(),
    };
    let mut command = Command::new(found);
    let process = ChildProcess::start(command.args(arguments).arg(settings));
    process.unwrap_or_else(|e| panic!("{e}; run scripts/test to install {program}"))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, not SIGKILL: the proxy then also ends its worker processes.
        if self.process.try_wait().is_none() {
            self.process.signal("TERM");
            self.process.wait();
        }
    }
}
