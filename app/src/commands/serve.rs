//! `keywright serve`.

use std::sync::Arc;

use anyhow::{anyhow, bail};
use keywright_adapters::time::SystemIds;
use tokio::net::TcpListener;

use super::runtime::block_on_all_cores;
use crate::bootstrap::file_checks;
use crate::bootstrap::urls::Urls;
use crate::bootstrap::wiring::{Wiring, wire};
use crate::settings::{AdminListen, Settings};
use crate::signals::{Signals, Stop};
use crate::{log_output, server, service_manager, startup_health};

/// Serves HTTP until a signal stops it.
///
/// # Errors
/// A setting or a file cannot be used, the address is taken, or a part of the service has failed.
pub(crate) fn run(settings: &Settings, wiring: &Wiring) -> anyhow::Result<()> {
    let _logging = log_output::start(settings.log, settings.log_level);
    block_on_all_cores(serve(settings, wiring))
}

async fn serve(settings: &Settings, wiring: &Wiring) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    file_checks::check(settings)?;
    let address = settings.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| anyhow!("cannot listen on {address}: {e}; choose another with --listen"))?;
    let admin_listener = match settings.admin_listen {
        AdminListen::At(address) => {
            let listener = TcpListener::bind(address).await;
            let refused =
                |e| anyhow!("cannot listen on {address}: {e}; choose another with --admin-listen");
            Some(listener.map_err(refused)?)
        }
        AdminListen::Off | AdminListen::WithApi => None,
    };
    let url = format!("http://{}", listener.local_addr()?);
    let admin_url = match &admin_listener {
        Some(listener) => Some(format!("http://{}/admin", listener.local_addr()?)),
        None => (settings.admin_listen == AdminListen::WithApi).then(|| format!("{url}/admin")),
    };
    let urls = Urls {
        api: &url,
        admin: admin_url.as_deref(),
    };
    let message = settings.store.startup_message();
    let mut service = tokio::select! {
        service = wire(settings, wiring, urls) => service?,
        () = startup_health::answer_health_checks(&listener, &settings.http_limits, Arc::new(SystemIds), message) => return Ok(()),
        _ = signals.next() => return Ok(()),
    };
    #[cfg(feature = "sandbox")]
    if settings.sandbox.is_some() && !address.ip().is_loopback() {
        tracing::warn!(%address, "other machines can reach the sandbox, and its demo credentials are public");
    }
    // A closed terminal does not stop the service.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), service.banner.as_bytes());
    tell_service_manager(service_manager::READY);
    let (app, mut failure) = (service.app.clone(), None);
    let stop = async {
        let stop = tokio::select! {
            stop = signals.next() => stop,
            failed = service.failure() => {
                failure = Some(failed);
                Stop::Now
            }
        };
        tell_service_manager(service_manager::STOPPING);
        // A second signal ends the process without waiting.
        tokio::spawn(async move {
            signals.next().await;
            tracing::warn!("stopped at once; writes in progress are recovered at the next start");
            std::process::exit(1);
        });
        stop
    };
    server::run(listener, admin_listener, app, settings, stop).await;
    service.stop().await;
    match failure {
        None => Ok(()),
        Some(failure) => bail!("{failure}; the log says why; start again"),
    }
}

fn tell_service_manager(state: &str) {
    if let Err(error) = service_manager::notify(state) {
        tracing::warn!(%error, state, "the service manager is not told the state of the server");
    }
}
