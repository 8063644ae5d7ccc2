//! The composition root: the only place that names adapters.

mod credentials;
mod device_path;
#[cfg(feature = "jwks-url")]
mod published_keys;
mod store;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::json;
use keywright_adapters::layer::{
    FaultPlan, Faults, FaultyLockRepo, FaultyShadow, Metered, Timeout, TracedLockRepo,
    TracedShadow, Watched,
};
use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
use keywright_domain::ports::{Clock, LockHistory, LockRepo, ShadowPort};
use keywright_domain::values::{LockId, LockVersion, Timestamp};
use keywright_domain::{KeyWrites, Ports};
use keywright_sandbox::{Demo, VirtualLocks};
use keywright_shadow::ShadowService;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::app::{App, Work};
use crate::cli::Place;
use crate::demo_credentials::DemoCredentials;
use crate::metrics::Metrics;
use crate::settings::{Settings, ShadowChoice, StoreChoice};
use crate::workers;
pub(crate) use credentials::check_tokens;
pub(crate) use device_path::VIRTUAL_LOCKS;
pub(crate) use device_path::check;
#[cfg(feature = "mqtt")]
pub(crate) use device_path::{open_shadows, seconds};
use store::Stores;
pub(crate) use store::{ApiKeyStore, Store};

/// What the commands need of the adapters.
pub(crate) use keywright_adapters::auth::{ApiKey, ApiKeyRecord, LastUsed, write_private};

/// What verifies tokens.
pub(crate) use keywright_adapters::auth::JwtVerifier;

/// Who is told of what goes through the ports.
pub(crate) use keywright_adapters::layer::{Call, Observer, Recorded};

/// What takes in the reports that are brought over HTTP.
pub(crate) use keywright_adapters::reports::{HttpReports, Undelivered};

pub(crate) use keywright_adapters::lock_repo::NEXT_VERSION;

/// The moment.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// The file of the key for the sandbox's tokens, in the folder of data.
pub(crate) const TOKEN_KEY: &str = "token-key.pk8";

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
    _virtual_locks: Option<VirtualLocks>,
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

/// Everything that the settings ask for.
pub(crate) async fn wire(settings: &Settings, wiring: &Wiring, url: &str) -> Result<Wired, Error> {
    let data = settings.data.as_path();
    make_private_folder(data)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // The reports are subscribed to before the first lock can say something.
    let path = device_path::connect(settings).await?;

    let patience = settings.protocol.request;
    let stores = Stores::open(&settings.store, data, patience).await?;
    let store = stores.locks;
    let demo = Demo {
        more_locks: settings.sandbox.more_locks,
    };
    if settings.sandbox.demo {
        import(&store, demo, &*clock).await?;
    }
    let let_in = credentials::let_in(settings, url, &clock, stores.api_keys).await?;

    let saved = broadcast::channel(SAVED_BACKLOG).0;
    let faults = Faults::new(settings.sandbox.faults.clone());
    let faulty = settings.sandbox.faults != FaultPlan::default();
    let mut locks = (wiring.around_locks)(store.locks());
    let mut shadow = path.shadow;
    if faulty {
        locks = Arc::new(FaultyLockRepo::new(locks, faults.clone()));
        shadow = Arc::new(FaultyShadow::with(shadow, faults));
    }
    let locks = Arc::new(Timeout::<dyn LockRepo>::new(locks, patience));
    let locks = Arc::new(Watched::new(locks, saved.clone()));
    let history: Arc<dyn LockHistory> =
        Arc::new(Timeout::<dyn LockHistory>::new(store.history(), patience));
    let ids = Arc::new(SystemIds);
    let timer = Arc::new(TokioTimer::default());
    let metrics = Arc::new(Metrics::new());
    let ports = Ports {
        locks: Arc::new(Metered::<dyn LockRepo>::new(
            Arc::new(TracedLockRepo::new(locks)),
            metrics.clone(),
        )),
        history: history.clone(),
        shadow: Arc::new(Metered::<dyn ShadowPort>::new(
            Arc::new(TracedShadow::new(shadow)),
            metrics.clone(),
        )),
        clock: clock.clone(),
        timer: timer.clone(),
        ids: ids.clone(),
    };
    let writes = Arc::new(KeyWrites::new(ports, settings.protocol)?);
    let (auth, tokens) = (let_in.auth.clone(), let_in.own_tokens());
    let banner = banner(settings, url, let_in.demo.as_ref(), &stores.place);
    let mut workers = workers::start(&writes, path.reports, &metrics);
    if let Some(every) = settings.audit_every {
        let (writes, metrics) = (writes.clone(), metrics.clone());
        workers.spawn(workers::audit(writes, history.clone(), metrics, every));
    }
    let (tell, store_answers) = watch::channel(true);
    workers.spawn(workers::watch_store(history, tell));
    let_in.follow(&mut workers);
    if let Some(watching) = path.watching {
        workers.spawn(watching);
    }
    let virtual_locks = match &path.service {
        Some(service) => device_path::virtual_locks(settings, service, demo)?,
        None => None,
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
        _virtual_locks: virtual_locks,
    })
}

/// What an audit needs.
pub(crate) struct Auditing {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) history: Arc<dyn LockHistory>,
    /// What watches over the way to the shadows.
    pub(crate) watching: Option<device_path::Watching>,
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
    let path = device_path::connect(&settings).await?;
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
    let patience = settings.protocol.request;
    let store = Stores::open_now(&settings.store, &settings.data)
        .await?
        .locks;
    let history: Arc<dyn LockHistory> =
        Arc::new(Timeout::<dyn LockHistory>::new(store.history(), patience));
    let ports = Ports {
        locks: Arc::new(Timeout::<dyn LockRepo>::new(store.locks(), patience)),
        history: history.clone(),
        shadow: path.shadow,
        clock: Arc::new(SystemClock),
        timer: Arc::new(TokioTimer::default()),
        ids: Arc::new(SystemIds),
    };
    Ok(Auditing {
        writes: Arc::new(KeyWrites::new(ports, settings.protocol)?),
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
pub(crate) async fn open_store(place: &Place) -> Result<Store, Error> {
    Ok(Stores::open_now(&place.store()?, &place.data()?)
        .await?
        .locks)
}

/// As [`open_store`], where there is one already.
///
/// # Errors
/// There is none, or it cannot be used.
pub(crate) async fn open_known_store(place: &Place) -> Result<Store, Error> {
    let data = place.data()?;
    if !store::is_there(&place.store()?, &data) {
        let why = "name the server's folder with --data, or add a lock";
        return Err(format!("there are no locks in {}; {why}", data.display()).into());
    }
    open_store(place).await
}

/// The API keys, for commands, beside a server that may be running.
///
/// # Errors
/// They cannot be used.
pub(crate) async fn open_api_keys(place: &Place) -> Result<ApiKeyStore, Error> {
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

/// Adds those locks of the demo world that the store does not know yet.
async fn import(store: &Store, demo: Demo, clock: &dyn Clock) -> Result<(), Error> {
    let now = clock.now().to_string();
    let mut events = Vec::new();
    for lock in demo.locks() {
        if store.load(LockId::new(lock.id)?).await?.is_some() {
            continue;
        }
        for ((name, data), version) in lock.events(&now).iter().zip(1..) {
            events.push(json::read_event(name, LockVersion(version), None, data)?);
        }
    }
    if !events.is_empty() {
        store.history().import(events).await?;
    }
    Ok(())
}

fn banner(
    settings: &Settings,
    url: &str,
    credentials: Option<&DemoCredentials>,
    place: &str,
) -> String {
    let (data, lock, foreign) = (settings.data.display(), Demo::LOCK, Demo::FOREIGN_LOCK);
    let (shadows, reports) = (&settings.shadow, &settings.reports);
    let Some(DemoCredentials { token, api_key }) = credentials else {
        return format!(
            "Keywright is at {url}
  data         {place}
  shadows      {shadows}; reports come {reports}

Add locks with `keywright lock add`, and let clients in with `keywright api-key issue` or tokens of yours.
"
        );
    };
    let here = matches!(shadows, ShadowChoice::InProcess { .. });
    let locks = match settings.sandbox.more_locks {
        _ if here && !settings.sandbox.virtual_locks => {
            "virtual locks are off: a write stays SENT".to_owned()
        }
        0 => format!("lock {lock} is yours, lock {foreign} is not"),
        more => {
            let (first, last) = (Demo::FIRST_MORE, Demo::FIRST_MORE + more - 1);
            format!("locks {lock} and {first} to {last} are yours, lock {foreign} is not")
        }
    };
    format!(
        "Keywright's sandbox is at {url}
  data         {place}
  shadows      {shadows}; reports come {reports}
  locks        {locks}
  credentials  {data}/sandbox.env

Write a key:

curl -sS {url}/locks/{lock}/WriteKey -H 'Content-Type: application/json' \
-H 'Authorization: Bearer {token}' -H 'X-API-Key: {api_key}' \
-d '{{\"keyUuid\":\"9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b\",\"keyIndexNumber\":2}}'

"
    )
}
