//! The ports of an audit that runs beside a server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use keywright_adapters::decorator::Timeout;
use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
use keywright_domain::ports::{LockHistory, LockRepo};
use keywright_domain::{KeyWrites, Ports};

use super::open_stores::{self, Stores};
use super::shadow_access::{self, ShadowWatch};
use crate::error::UnusableSettings;
use crate::settings::Settings;

/// How long an audit waits for the connections to the shadows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct AuditAccess {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) locks: Arc<dyn LockRepo>,
    pub(crate) history: Arc<dyn LockHistory>,
    /// Must be polled during the audit.
    pub(crate) shadow_watch: Option<ShadowWatch>,
}

/// Connects to the store and the shadows of a server with these settings. The server may be running.
///
/// # Errors
/// There is no store, or the store or the shadows cannot be used.
pub(crate) async fn open_for_audit(settings: &Settings) -> anyhow::Result<AuditAccess> {
    ensure!(
        open_stores::exists(&settings.store, &settings.data),
        "there are no locks in {}; name the server's folder with --data",
        settings.data.display()
    );
    let settings = settings.beside_a_server();
    shadow_access::check(&settings).map_err(UnusableSettings::new)?;
    let mut access = shadow_access::connect(&settings).await?;
    let connected = async {
        for mut up in access.connected {
            // The sender lives as long as the connection.
            let _ = up.wait_for(|up| *up).await;
        }
    };
    let watched = async {
        match &mut access.watch {
            Some(watch) => watch.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = connected => {}
        () = watched => {}
        () = tokio::time::sleep(CONNECT_TIMEOUT) => {
            bail!("the broker cannot be reached, or no shadow service answers there");
        }
    }
    let timeout = settings.protocol.request_timeout;
    let stores = Stores::open_now(&settings.store, &settings.data).await?;
    let history = Arc::new(Timeout::<dyn LockHistory>::new(
        stores.locks.history(),
        timeout,
    ));
    let locks = Arc::new(Timeout::<dyn LockRepo>::new(stores.locks.repo(), timeout));
    let ports = Ports {
        locks: locks.clone(),
        history: history.clone(),
        shadow: access.shadow,
        clock: Arc::new(SystemClock),
        timer: Arc::new(TokioTimer::default()),
        ids: Arc::new(SystemIds),
    };
    Ok(AuditAccess {
        writes: Arc::new(KeyWrites::new(ports, settings.protocol)?),
        locks,
        history,
        shadow_watch: access.watch,
    })
}
