//! Reverse proxies as processes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A running reverse proxy, stopped when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Proxy {
    /// Starts `program` on a free port with what `settings` says for an address and a folder of its own. `arguments` stand before
    /// the path of the file with the settings.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(
        program: &str,
        arguments: &[&str],
        settings: impl Fn(SocketAddr, &Path) -> String,
    ) -> Self {
        // A port that was free may be taken before the proxy has it.
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("an address");
            drop(listener);
            let folder = TempDir::new().expect("a folder");
            let path = folder.path().join("proxy.conf");
            std::fs::write(&path, settings(address, folder.path())).expect("written");
            let mut proxy = Self {
                address,
                child: spawn(program, arguments, &path),
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
            if self.child.try_wait().expect("the system says").is_some() {
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

fn spawn(program: &str, arguments: &[&str], settings: &Path) -> Child {
    // Debian keeps it where only an administrator's path leads.
    let elsewhere = Path::new("/usr/sbin").join(program);
    let found = match elsewhere.exists() {
        true => elsewhere,
        false => program.into(),
    };
    let child = Command::new(found)
        .args(arguments)
        .arg(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.unwrap_or_else(|e| panic!("{program} is not installed, scripts/test does that: {e}"))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, at which its workers end, too.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}
