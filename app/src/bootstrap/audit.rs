//! The ports of an audit that runs beside a server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use keywright_adapters::decorator::Timeout;
use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
use keywright_domain::ports::{LockHistory, LockRepo};
use keywright_domain::{KeyWrites, Ports};
use tokio::task::JoinSet;

use super::open_stores::open_existing;
use super::shadow_access;
use crate::error::UnusableSettings;
use crate::settings::Settings;

/// How long an audit waits for the connections to the shadows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the store and the shadows of a server with these settings. The server may be running. Returns also the ports.
///
/// # Errors
/// There is no store, or the store or the shadows cannot be used.
pub(crate) async fn open_for_audit(settings: &Settings) -> anyhow::Result<(Arc<KeyWrites>, Ports)> {
    let settings = settings.beside_a_server();
    shadow_access::check(&settings).map_err(UnusableSettings::new)?;
    let store = open_existing(&settings.store, &settings.data).await?;
    let mut tasks = JoinSet::new();
    let access = shadow_access::connect(&settings, &mut tasks).await?;
    let connected = async {
        for mut up in access.connected {
            // The sender lives as long as the connection.
            let _ = up.wait_for(|up| *up).await;
        }
    };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connected).await.ok();
    connected.context("the broker cannot be reached, or no shadow service answers there")?;
    tasks.detach_all();
    let timeout = settings.protocol.request_timeout;
    let ports = Ports {
        locks: Arc::new(Timeout::<dyn LockRepo>::new(store.repo(), timeout)),
        history: Arc::new(Timeout::<dyn LockHistory>::new(store.history(), timeout)),
        shadow: access.shadow,
        clock: Arc::new(SystemClock),
        timer: Arc::new(TokioTimer::default()),
        ids: Arc::new(SystemIds),
    };
    let writes = KeyWrites::new(ports.clone(), settings.protocol)?;
    Ok((Arc::new(writes), ports))
}
