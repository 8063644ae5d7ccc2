//! The composition root: the only place that names adapters.

mod credentials;
mod folder_lock;
#[cfg(feature = "jwks-url")]
mod published_keys;
#[cfg(feature = "sandbox")]
pub(crate) mod sandbox;
mod shadow_access;
mod store;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::decorator::{CallLog, Observed, Observers, Timeout, WriteBroadcast};
use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
use keywright_domain::model::Timestamp;
use keywright_domain::ports::{Clock, IdGenerator, LockHistory, LockRepo, ShadowPort};
use keywright_domain::{KeyWrites, Ports};
use keywright_shadow::ShadowService;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::app::{App, Work};
use crate::cli::StoreLocation;
use crate::metrics::Metrics;
use crate::settings::{Settings, ShadowChoice, StoreChoice, UnusableSettings};
use crate::workers;
use folder_lock::FolderLock;
#[cfg(feature = "mqtt")]
pub(crate) use shadow_access::open_shadows;
#[cfg(all(feature = "mqtt", feature = "sandbox"))]
pub(crate) use shadow_access::seconds;
use store::Stores;
pub(crate) use store::{ApiKeyStore, Store};

/// What the commands need of the adapters.
pub(crate) use keywright_adapters::auth::{ApiKey, ApiKeyRecord, LastUsed};

/// What verifies tokens.
pub(crate) use keywright_adapters::auth::JwtVerifier;

/// What observers of the ports are notified of.
pub(crate) use keywright_adapters::decorator::{AppliedSave, CallOutcome, Observer, PortCall};

/// What takes in the reports that are brought over HTTP.
pub(crate) use keywright_adapters::reports::{DeliveryError, HttpReports};

pub(crate) use keywright_adapters::lock_repo::NEXT_VERSION;

/// The moment.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// What gives requests their ids while the service is being set up.
pub(crate) fn ids() -> Arc<dyn IdGenerator> {
    Arc::new(SystemIds)
}

/// How many saved writes somebody who waits for one may lag behind.
const SAVED_BACKLOG: usize = 1024;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a program that embeds the service puts around its adapters. Tests break them on purpose with it.
pub struct Wiring {
    /// Around the store of locks, beneath everything that this service puts around it.
    pub around_locks: fn(Arc<dyn LockRepo>) -> Arc<dyn LockRepo>,
}

impl Default for Wiring {
    fn default() -> Self {
        Self {
            around_locks: |locks| locks,
        }
    }
}

/// The running service.
pub(crate) struct Wired {
    pub(crate) app: Arc<App>,
    /// What was started, for the person who started it.
    pub(crate) banner: String,
    workers: JoinSet<()>,
    store: Store,
    /// The shadows, where they are in this process.
    service: Option<ShadowService>,
    _folder: Option<FolderLock>,
    #[cfg(feature = "sandbox")]
    _virtual_locks: Option<keywright_sandbox::VirtualLocks>,
}

impl Wired {
    /// Waits until something without which nothing is done right has ended, which it should not; answers what.
    pub(crate) async fn broken(&mut self) -> &'static str {
        let shadows = async {
            match &self.service {
                Some(service) => service.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.store.ended() => "the store of locks is damaged or can no longer be written",
            () = shadows => "the store of shadows can no longer be written",
            _ = self.workers.join_next() => "a worker has ended",
        }
    }
}

/// Reads the files that the settings name, and looks whether data can be kept where they say. It connects to nothing, and leaves
/// nothing behind.
///
/// # Errors
/// One cannot be used; the text names it.
pub(crate) fn check(settings: &Settings) -> Result<(), UnusableSettings> {
    if let Some(tokens) = &settings.tokens {
        credentials::check_tokens(tokens).map_err(UnusableSettings::new)?;
    }
    shadow_access::check(settings).map_err(UnusableSettings::new)?;
    check_folder(&settings.data)
}

/// Checks what only the environment of this machine says, which [`wire`] finds out by itself.
///
/// # Errors
/// Something is missing; the text names it.
pub(crate) async fn check_environment(settings: &Settings) -> Result<(), Error> {
    Ok(shadow_access::check_environment(settings).await?)
}

/// Whether files can be made in the folder, or the folder itself where it is missing.
fn check_folder(data: &Path) -> Result<(), UnusableSettings> {
    let existing = data.ancestors().find(|folder| folder.exists());
    let existing = existing.unwrap_or_else(|| Path::new("."));
    // It is gone when this returns.
    let made = tempfile::tempfile_in(existing).map_err(|e| {
        let data = data.display();
        UnusableSettings::new(format!(
            "cannot keep data in {data}: {}: {e}",
            existing.display()
        ))
    });
    made.map(drop)
}

/// Whether locks or shadows are in the folder of data. With both elsewhere, several servers may share it.
fn is_folder_used(settings: &Settings) -> bool {
    let has_locks = matches!(settings.store, StoreChoice::File);
    has_locks || matches!(settings.shadow, ShadowChoice::InProcess { kept: true })
}

/// Everything that the settings ask for.
pub(crate) async fn wire(settings: &Settings, wiring: &Wiring, url: &str) -> Result<Wired, Error> {
    let data = settings.data.as_path();
    make_private_folder(data)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let folder = is_folder_used(settings)
        .then(|| FolderLock::take(data))
        .transpose()?;
    // The reports are subscribed to before the first lock can say something.
    let path = shadow_access::connect(settings).await?;

    let timeout = settings.protocol.request_timeout;
    let stores = Stores::open(&settings.store, data, timeout).await?;
    let store = stores.locks;
    #[cfg(feature = "sandbox")]
    let demo = match &settings.sandbox {
        Some(sandbox) => {
            sandbox::import(&store, sandbox, &*clock).await?;
            Some(sandbox::open_credentials(data, url, &*clock, &stores.api_keys).await?)
        }
        None => None,
    };
    #[cfg(feature = "sandbox")]
    let demo_tokens = demo.as_ref().map(|demo| demo.tokens.clone());
    #[cfg(not(feature = "sandbox"))]
    let demo_tokens = None;
    let auth_stack =
        credentials::auth_stack(settings, &clock, stores.api_keys, demo_tokens).await?;

    let saved = broadcast::channel(SAVED_BACKLOG).0;
    let (locks, shadow) = ((wiring.around_locks)(store.locks()), path.shadow);
    #[cfg(feature = "sandbox")]
    let (locks, shadow) = match &settings.sandbox {
        Some(sandbox) => sandbox::around(sandbox, locks, shadow),
        None => (locks, shadow),
    };
    let metrics = Arc::new(Metrics::new());
    let observers: Observers = Arc::new([
        Arc::new(WriteBroadcast::new(saved.clone())),
        Arc::new(CallLog::default()),
        metrics.clone(),
    ]);
    let locks = Arc::new(Timeout::<dyn LockRepo>::new(locks, timeout));
    let history = Arc::new(Timeout::<dyn LockHistory>::new(store.history(), timeout));
    let history: Arc<dyn LockHistory> =
        Arc::new(Observed::<dyn LockHistory>::new(history, observers.clone()));
    let ids = Arc::new(SystemIds);
    let timer = Arc::new(TokioTimer::default());
    let ports = Ports {
        locks: Arc::new(Observed::<dyn LockRepo>::new(locks, observers.clone())),
        history: history.clone(),
        shadow: Arc::new(Observed::<dyn ShadowPort>::new(shadow, observers)),
        clock: clock.clone(),
        timer: timer.clone(),
        ids: ids.clone(),
    };
    let writes = Arc::new(KeyWrites::new(ports, settings.protocol)?);
    let (auth, tokens) = (auth_stack.auth.clone(), auth_stack.own_tokens());
    let banner = banner(settings, url, &stores.place);
    #[cfg(feature = "sandbox")]
    let banner = match (&settings.sandbox, &demo) {
        (Some(sandbox), Some(demo)) => {
            sandbox::banner(settings, sandbox, url, &demo.demo, &stores.place)
        }
        _ => banner,
    };
    let mut workers = workers::start(&writes, path.reports, &metrics);
    if let Some(every) = settings.audit_every {
        let (writes, metrics) = (writes.clone(), metrics.clone());
        workers.spawn(workers::audit(writes, history.clone(), metrics, every));
    }
    if let Some(omitted) = path.omitted_reports {
        workers.spawn(workers::count_omitted_reports(omitted, metrics.clone()));
    }
    let (tell, store_answers) = watch::channel(true);
    workers.spawn(workers::watch_store(history, tell));
    auth_stack.follow(&mut workers);
    if let Some(watching) = path.watching {
        workers.spawn(watching);
    }
    #[cfg(feature = "sandbox")]
    let virtual_locks = match (&settings.sandbox, &path.service) {
        (Some(sandbox), Some(service)) => sandbox::start_virtual_locks(settings, sandbox, service)?,
        _ => None,
    };
    let app = App {
        writes,
        auth,
        tokens,
        saved,
        clock,
        timer,
        ids,
        bounds: settings.bounds,
        cors: settings.cors.clone(),
        metrics,
        admission: Admission::new(&settings.bounds),
        work: Work::new(),
        connected: path.connected,
        store_answers,
        ingest: path.ingest,
    };
    Ok(Wired {
        app: Arc::new(app),
        banner,
        workers,
        store,
        service: path.service,
        _folder: folder,
        #[cfg(feature = "sandbox")]
        _virtual_locks: virtual_locks,
    })
}

/// What an audit needs.
pub(crate) struct Auditing {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) locks: Arc<dyn LockRepo>,
    pub(crate) history: Arc<dyn LockHistory>,
    /// What watches over the way to the shadows.
    pub(crate) watching: Option<shadow_access::Watching>,
}

/// How long an audit waits for a broker.
const CONNECTING: Duration = Duration::from_secs(10);

/// The use cases over what the settings name, beside a server that runs with the same ones.
///
/// # Errors
/// It cannot be used, or the broker is not reached.
pub(crate) async fn open_for_audit(settings: &Settings) -> Result<Auditing, Error> {
    if !store::is_there(&settings.store, &settings.data) {
        let data = settings.data.display();
        return Err(
            format!("there are no locks in {data}; name the server's folder with --data").into(),
        );
    }
    let settings = settings.beside_a_server();
    shadow_access::check(&settings).map_err(UnusableSettings::new)?;
    let path = shadow_access::connect(&settings).await?;
    let mut watching = path.watching;
    let connected = async {
        for mut up in path.connected {
            // It is told for as long as the path is there.
            let _ = up.wait_for(|up| *up).await;
        }
    };
    let watched = async {
        match &mut watching {
            Some(watching) => watching.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = connected => {}
        () = watched => {}
        () = tokio::time::sleep(CONNECTING) => {
            return Err("the broker is not reached, or nobody answers for shadows there".into());
        }
    }
    let timeout = settings.protocol.request_timeout;
    let store = Stores::open_now(&settings.store, &settings.data)
        .await?
        .locks;
    let history: Arc<dyn LockHistory> =
        Arc::new(Timeout::<dyn LockHistory>::new(store.history(), timeout));
    let locks = Arc::new(Timeout::<dyn LockRepo>::new(store.locks(), timeout));
    let ports = Ports {
        locks: locks.clone(),
        history: history.clone(),
        shadow: path.shadow,
        clock: Arc::new(SystemClock),
        timer: Arc::new(TokioTimer::default()),
        ids: Arc::new(SystemIds),
    };
    Ok(Auditing {
        writes: Arc::new(KeyWrites::new(ports, settings.protocol)?),
        locks,
        history,
        watching,
    })
}

/// What is kept names keys and people: it is for its owner only.
pub(crate) fn make_private_folder(data: &Path) -> Result<(), Error> {
    let mut folder = fs::DirBuilder::new();
    let made = folder.recursive(true).mode(0o700).create(data);
    Ok(made.map_err(|e| format!("cannot make the folder {}: {e}", data.display()))?)
}

/// The store of locks, for commands, beside a server that may be running.
///
/// # Errors
/// It cannot be used.
pub(crate) async fn open_store(place: &StoreLocation) -> Result<Store, Error> {
    let (choice, data) = (place.store()?, place.data()?);
    Ok(Stores::open_now(&choice, &data).await?.locks)
}

/// As [`open_store`], where there is one already.
///
/// # Errors
/// There is none, or it cannot be used.
pub(crate) async fn open_known_store(place: &StoreLocation) -> Result<Store, Error> {
    let (choice, data) = (place.store()?, place.data()?);
    if !store::is_there(&choice, &data) {
        let why = "name the server's folder with --data, or add a lock";
        return Err(format!("there are no locks in {}; {why}", data.display()).into());
    }
    open_store(place).await
}

/// The API keys, for commands, beside a server that may be running.
///
/// # Errors
/// They cannot be used.
pub(crate) async fn open_api_keys(place: &StoreLocation) -> Result<ApiKeyStore, Error> {
    let (choice, data) = (place.store()?, place.data()?);
    if !matches!(choice, StoreChoice::File | StoreChoice::Memory) {
        return Ok(Stores::open_now(&choice, &data).await?.api_keys);
    }
    if !data.is_dir() {
        let why = "name the server's folder with --data, or start the server once";
        return Err(format!("there is no folder {}; {why}", data.display()).into());
    }
    Ok(ApiKeyStore::of_files(&data))
}

fn banner(settings: &Settings, url: &str, place: &str) -> String {
    let (shadows, reports) = (&settings.shadow, &settings.reports);
    format!(
        "Keywright is at {url}
  data         {place}
  shadows      {shadows}; reports come {reports}

Add locks with `keywright lock add`, and let clients in with `keywright api-key issue` or tokens of yours.
"
    )
}
