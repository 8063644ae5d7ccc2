//! Messages to the service manager, as `sd_notify(3)` of systemd describes them.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable with the address of the manager's socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// The server accepts requests.
pub(crate) const READY: &str = "READY=1";

/// The server is being stopped.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Tells the service manager the state of this process. Without a service manager it does nothing.
///
/// # Errors
/// The service manager cannot be reached.
pub(crate) fn notify(state: &str) -> io::Result<()> {
    let Some(name) = std::env::var_os(SOCKET) else {
        return Ok(());
    };
    let name = name.to_string_lossy();
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&*name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}
