//! The running service: which adapter implements which port, and what runs beside the requests.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::decorator::{Observed, Observers, Timeout, WriteBroadcast, WriteLog};
use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
use keywright_adapters::webhooks::SqliteWebhookStore;
use keywright_domain::ports::{Clock, LockHistory, LockRepo, ShadowPort};
use keywright_domain::{KeyWrites, Ports};
use keywright_runner::RunningTasks;
#[cfg(feature = "sandbox")]
use keywright_sandbox::{Shadows, VirtualLocks};
#[cfg(feature = "sandbox")]
use keywright_shadow::ShadowName;
use keywright_shadow::ShadowService;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::lock_store::LockStore;
use super::open_stores::Stores;
#[cfg(feature = "sandbox")]
use super::sandbox::{self, credentials::open_credentials};
use super::single_server::lock_folder;
use super::urls::Urls;
use super::webhook_wiring;
use super::{auth_stack, data_folder, shadow_access};
use crate::admin::AdminService;
use crate::admin::recent_activity::RecentActivity;
use crate::app::{App, Work};
use crate::http;
use crate::metrics::Metrics;
use crate::recent_events::RecentEvents;
use crate::request_admission::RequestAdmission;
use crate::settings::{Settings, ShadowChoice, StoreChoice};
use crate::webhook_service::WebhookService;
use crate::workers;

/// How many saved writes a waiting request may be behind. A request that is further behind reads the store.
const SAVED_CAPACITY: usize = 1024;

/// How long the background tasks may take to end what is in progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the deliveries of webhooks may take to end. What does not end in time is delivered again.
const WEBHOOKS_STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Decorators that an embedding program puts around the adapters. Tests inject faults with them.
pub struct Wiring {
    /// Wraps the store of locks, below all decorators of the service itself.
    pub wrap_lock_repo: fn(Arc<dyn LockRepo>) -> Arc<dyn LockRepo>,
}

impl Default for Wiring {
    fn default() -> Self {
        Self {
            wrap_lock_repo: |locks| locks,
        }
    }
}

pub(crate) struct RunningService {
    pub(crate) app: Arc<App>,
    /// What the operator sees on standard output after the start.
    pub(crate) banner: String,
    workers: JoinSet<()>,
    runner: RunningTasks,
    /// Cancelled when the deliveries of webhooks have ended after the service was closed for new work.
    webhooks_stopped: Option<CancellationToken>,
    /// The store of webhooks, if it is a file.
    webhook_file: Option<SqliteWebhookStore>,
    store: LockStore,
    /// The shadow service, if it is in this process.
    shadow_service: Option<ShadowService>,
    _folder: Option<File>,
    #[cfg(feature = "sandbox")]
    _virtual_locks: Option<VirtualLocks>,
}

impl RunningService {
    /// Waits until a part has failed that the service cannot do without, and returns what has failed.
    pub(crate) async fn failure(&mut self) -> String {
        let shadows = async {
            match &self.shadow_service {
                Some(service) => service.ended().await,
                None => std::future::pending().await,
            }
        };
        let webhooks = async {
            match &self.webhook_file {
                Some(file) => {
                    let error = file.ended().await;
                    error!(%error, "webhooks cannot be stored");
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = webhooks => "the store of webhooks can no longer be written".into(),
            () = self.store.ended() => "the store of locks is damaged or can no longer be written".into(),
            () = shadows => "the store of shadows can no longer be written".into(),
            task = self.runner.failure() => format!("{task} has ended"),
            _ = self.workers.join_next() => "a worker has ended".into(),
        }
    }

    /// Ends the background tasks of the domain. What does not end in time is done again after the next start.
    pub(crate) async fn stop(&self) {
        let webhooks = async {
            if let Some(stopped) = &self.webhooks_stopped {
                stopped.cancelled().await;
            }
        };
        let runner = tokio::time::timeout(STOP_TIMEOUT, self.runner.stop());
        let webhooks = tokio::time::timeout(WEBHOOKS_STOP_TIMEOUT, webhooks);
        let _ = tokio::join!(runner, webhooks);
    }
}

/// Builds the adapters that the settings choose, connects them to the domain, and starts the background tasks.
///
/// # Errors
/// A file, the store or AWS cannot be used. A broker that cannot be reached is waited for in the background.
pub(crate) async fn wire(
    settings: &Settings,
    wiring: &Wiring,
    urls: Urls<'_>,
) -> anyhow::Result<RunningService> {
    let data = settings.data.as_path();
    data_folder::create(data)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let folder = is_folder_used(settings)
        .then(|| lock_folder(data))
        .transpose()?;
    let mut workers = JoinSet::new();
    // Subscribes to reports before the first lock can send one.
    let access = shadow_access::connect(settings, &mut workers).await?;

    let timeout = settings.protocol.request_timeout;
    let stores = Stores::open(&settings.store, data, timeout).await?;
    let store = stores.locks;
    #[cfg(feature = "sandbox")]
    let demo = match &settings.sandbox {
        Some(sandbox) => {
            sandbox::import_locks(&store, sandbox, &*clock).await?;
            let opened = open_credentials(data, urls.api, &*clock, &stores.api_keys);
            Some(opened.await?)
        }
        None => None,
    };
    #[cfg(feature = "sandbox")]
    let demo_tokens = demo.as_ref().map(|(_, verifier)| verifier.clone());
    #[cfg(not(feature = "sandbox"))]
    let demo_tokens = None;
    let auth = auth_stack::start(settings, &clock, stores.api_keys, demo_tokens, &mut workers);
    let (auth, tokens) = auth.await?;

    let saved = broadcast::channel(SAVED_CAPACITY).0;
    let (locks, shadow) = ((wiring.wrap_lock_repo)(store.repo()), access.shadow);
    #[cfg(feature = "sandbox")]
    let (locks, shadow) = match &settings.sandbox {
        Some(sandbox) => sandbox::with_faults(sandbox, locks, shadow),
        None => (locks, shadow),
    };
    let metrics = Arc::new(Metrics::new());
    let timer = Arc::new(TokioTimer::default());
    let activity = Arc::new(RecentActivity::new(timer.clone()));
    let observers: Observers = Arc::new([
        Arc::new(WriteBroadcast::new(saved.clone())),
        Arc::new(WriteLog::default()),
        metrics.clone(),
        activity.clone(),
    ]);
    let locks = Arc::new(Timeout::<dyn LockRepo>::new(locks, timeout));
    let history = Arc::new(Timeout::<dyn LockHistory>::new(store.history(), timeout));
    let history: Arc<dyn LockHistory> =
        Arc::new(Observed::<dyn LockHistory>::new(history, observers.clone()));
    let ids = Arc::new(SystemIds);
    let ports = Ports {
        locks: Arc::new(Observed::<dyn LockRepo>::new(locks, observers.clone())),
        history: history.clone(),
        shadow: Arc::new(Observed::<dyn ShadowPort>::new(shadow, observers)),
        clock: clock.clone(),
        timer: timer.clone(),
        ids: ids.clone(),
    };
    let writes = Arc::new(KeyWrites::new(ports, settings.protocol)?);
    let banner = banner(settings, urls, &stores.place);
    #[cfg(feature = "sandbox")]
    let banner = match (&settings.sandbox, &demo) {
        (Some(sandbox), Some((credentials, _))) => {
            sandbox::banner::banner(settings, sandbox, urls, credentials, &stores.place)
        }
        _ => banner,
    };
    let runner = workers::start(&writes, access.reports, &metrics);
    let (counted, backlog) = watch::channel(None);
    let counting = workers::count_backlog(writes.clone(), metrics.clone(), counted);
    workers.spawn(counting);
    let admin = urls
        .admin
        .map(|_| AdminService::new(data, activity, backlog, settings.is_sandbox(), clock.now()));
    if let Some(every) = settings.audit_every {
        let (writes, metrics) = (writes.clone(), metrics.clone());
        let audits = workers::audit::audit_all(writes, history.clone(), metrics, every);
        workers.spawn(audits);
    }
    let recent_events = Arc::new(RecentEvents::default());
    workers.spawn(
        recent_events
            .clone()
            .fill(writes.clone(), saved.clone(), http::event_frame),
    );
    let work = Work::default();
    let (webhooks, webhooks_stopped, webhook_file) = match &settings.webhooks {
        None => (None, None, None),
        Some(chosen) => {
            let opened = webhook_wiring::open(chosen, data, stores.webhooks, &writes).await?;
            let (opened, file) = opened;
            let service = WebhookService::new(opened);
            let shared = workers::webhooks::Shared {
                webhooks: service.webhooks.clone(),
                writes: writes.clone(),
                recent_events: recent_events.clone(),
                metrics: metrics.clone(),
                stopping: work.draining.clone(),
            };
            let stopped = CancellationToken::new();
            let delivering =
                workers::webhooks::deliver_all(service.clone(), shared, stopped.clone());
            workers.spawn(delivering);
            let lag = workers::webhooks::watch_lag(service.webhooks.clone(), metrics.clone());
            workers.spawn(lag);
            (Some(service), Some(stopped), file)
        }
    };
    let (store_health, store_answers) = watch::channel(true);
    workers.spawn(workers::store_health::watch_store(history, store_health));
    if let Some(omitted) = access.omitted_reports {
        workers.spawn(workers::count_omitted_reports(omitted, metrics.clone()));
    }
    #[cfg(feature = "sandbox")]
    let virtual_locks = match (&settings.sandbox, &access.service) {
        (Some(sandbox), Some(service)) if sandbox.virtual_locks => {
            let name = ShadowName::Named(settings.shadow_name.clone());
            let shadows = Shadows::InProcess(service.clone(), name);
            let (demo, behaviours) = (sandbox.demo, &sandbox.behaviours);
            Some(sandbox::start_virtual_locks(
                data, shadows, demo, behaviours,
            )?)
        }
        _ => None,
    };
    let app = App {
        writes,
        auth,
        tokens,
        saved,
        recent_events,
        clock,
        timer,
        ids,
        http_limits: settings.http_limits,
        cors: settings.cors.clone(),
        metrics,
        admission: RequestAdmission::new(&settings.http_limits),
        work,
        connected: access.connected,
        store_answers,
        device_reports: access.device_reports,
        webhooks,
        admin,
    };
    Ok(RunningService {
        app: Arc::new(app),
        banner,
        workers,
        runner,
        webhooks_stopped,
        webhook_file,
        store,
        shadow_service: access.service,
        _folder: folder,
        #[cfg(feature = "sandbox")]
        _virtual_locks: virtual_locks,
    })
}

/// Whether locks or shadows are in the data folder. If both are elsewhere, several servers may share the folder.
fn is_folder_used(settings: &Settings) -> bool {
    let has_locks = matches!(settings.store, StoreChoice::File);
    has_locks || matches!(settings.shadow, ShadowChoice::InProcess { kept: true })
}

fn banner(settings: &Settings, urls: Urls<'_>, place: &str) -> String {
    let (shadows, reports) = (&settings.shadow, &settings.reports);
    let url = urls.api;
    let page = urls.admin.map(|url| format!("  operators    {url}\n"));
    let page = page.unwrap_or_default();
    format!(
        "Keywright is at {url}
  data         {place}
  shadows      {shadows}; reports come {reports}
{page}
Add locks with `keywright lock add`, and give clients access with `keywright api-key issue` or tokens of your issuer.
"
    )
}
