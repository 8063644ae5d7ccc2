//! The composition root: the only place that names adapters.

mod credentials;
mod device_path;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use keywright_adapters::json;
use keywright_adapters::layer::{
    FaultPlan, Faults, FaultyLockRepo, FaultyShadow, Timeout, TracedLockRepo, TracedShadow, Watched,
};
use keywright_adapters::lock_repo::SqliteLockRepo;
use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
use keywright_domain::ports::{Clock, LockHistory, LockRepo};
use keywright_domain::values::{LockId, LockVersion, Timestamp};
use keywright_domain::{KeyWrites, Ports};
use keywright_sandbox::{Demo, VirtualLocks};
use keywright_shadow::ShadowService;
use tokio::sync::broadcast;
use tokio::task::{JoinSet, spawn_blocking};

use crate::app::{App, Work};
use crate::demo_credentials::DemoCredentials;
use crate::settings::{Settings, ShadowChoice};
use crate::workers;
pub(crate) use credentials::own_tokens;
pub(crate) use device_path::check;
#[cfg(feature = "mqtt")]
pub(crate) use device_path::{VIRTUAL_LOCKS, open_shadows, seconds};

/// What the commands need of the adapters.
pub(crate) use keywright_adapters::auth::{
    ApiKey, ApiKeyRecord, LastUsed, read_api_keys, read_last_used, write_api_keys, write_private,
};

/// What takes in the reports that are brought over HTTP.
pub(crate) use keywright_adapters::reports::{HttpReports, Undelivered};

pub(crate) use keywright_adapters::lock_repo::NEXT_VERSION;

/// The moment.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// The names of files in the folder of data.
pub(crate) const API_KEYS: &str = "api-keys.json";
pub(crate) const API_KEYS_USED: &str = "api-keys-used.json";
pub(crate) const TOKEN_KEY: &str = "token-key.pk8";
pub(crate) const LOCKS: &str = "locks.sqlite";

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
    store: Arc<SqliteLockRepo>,
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
            () = self.store.ended() => "the store of locks can no longer be written",
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

    let (file, leases) = (data.join(LOCKS), clock.clone());
    let store = spawn_blocking(move || SqliteLockRepo::open(&file, leases)).await??;
    let (journal, synchronous) = store.durability().await?;
    let demo = Demo {
        more_locks: settings.sandbox.more_locks,
    };
    if settings.sandbox.demo {
        import(&store, demo, &*clock).await?;
    }
    let let_in = credentials::let_in(settings, url, &clock)?;

    let store = Arc::new(store);
    let saved = broadcast::channel(SAVED_BACKLOG).0;
    let patience = settings.protocol.request;
    let faults = Faults::new(settings.sandbox.faults.clone());
    let faulty = settings.sandbox.faults != FaultPlan::default();
    let mut locks = (wiring.around_locks)(store.clone());
    let mut shadow = path.shadow;
    if faulty {
        locks = Arc::new(FaultyLockRepo::new(locks, faults.clone()));
        shadow = Arc::new(FaultyShadow::with(shadow, faults));
    }
    let locks = Arc::new(Timeout::<dyn LockRepo>::new(locks, patience));
    let locks = Arc::new(Watched::new(locks, saved.clone()));
    let history: Arc<dyn LockHistory> =
        Arc::new(Timeout::<dyn LockHistory>::new(store.clone(), patience));
    let ids = Arc::new(SystemIds);
    let ports = Ports {
        locks: Arc::new(TracedLockRepo::new(locks)),
        history: history.clone(),
        shadow: Arc::new(TracedShadow::new(shadow)),
        clock: clock.clone(),
        timer: Arc::new(TokioTimer::default()),
        ids: ids.clone(),
    };
    let writes = Arc::new(KeyWrites::new(ports, settings.protocol)?);
    let auth = let_in.auth.clone();
    let banner = banner(settings, url, let_in.demo.as_ref(), &journal, synchronous);
    let mut workers = workers::start(&writes, path.reports);
    let_in.follow(data, &mut workers);
    if let Some(watching) = path.watching {
        workers.spawn(watching);
    }
    let virtual_locks = match &path.service {
        Some(service) => Some(device_path::virtual_locks(settings, service, demo)?),
        None => None,
    };
    let app = App {
        writes,
        auth,
        history,
        saved,
        clock,
        ids,
        bounds: settings.bounds,
        work: Work::new(&settings.bounds),
        connected: path.connected,
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

/// What is kept names keys and people: it is for its owner only.
pub(crate) fn make_private_folder(data: &Path) -> Result<(), Error> {
    let mut folder = fs::DirBuilder::new();
    let made = folder.recursive(true).mode(0o700).create(data);
    Ok(made.map_err(|e| format!("cannot make the folder {}: {e}", data.display()))?)
}

/// The store of locks in a folder, for commands, beside a server that may be running.
///
/// # Errors
/// It cannot be used.
pub(crate) async fn open_store(data: &Path) -> Result<SqliteLockRepo, Error> {
    make_private_folder(data)?;
    let path = data.join(LOCKS);
    Ok(spawn_blocking(move || SqliteLockRepo::open(&path, Arc::new(SystemClock))).await??)
}

/// As [`open_store`], where there is one already.
///
/// # Errors
/// There is none, or it cannot be used.
pub(crate) async fn open_known_store(data: &Path) -> Result<SqliteLockRepo, Error> {
    if !data.join(LOCKS).is_file() {
        let why = "name the server's folder with --data, or add a lock";
        return Err(format!("there are no locks in {}; {why}", data.display()).into());
    }
    open_store(data).await
}

/// Adds those locks of the demo world that the store does not know yet.
async fn import(store: &SqliteLockRepo, demo: Demo, clock: &dyn Clock) -> Result<(), Error> {
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
        store.import(events).await?;
    }
    Ok(())
}

fn banner(
    settings: &Settings,
    url: &str,
    credentials: Option<&DemoCredentials>,
    journal: &str,
    synchronous: i64,
) -> String {
    let (data, lock, foreign) = (settings.data.display(), Demo::LOCK, Demo::FOREIGN_LOCK);
    let durable = match synchronous {
        2 => "FULL".to_owned(),
        other => other.to_string(),
    };
    let (shadows, reports) = (&settings.shadow, &settings.reports);
    let Some(DemoCredentials { token, api_key }) = credentials else {
        return format!(
            "Keywright is at {url}
  data         {data} (journal_mode={journal}, synchronous={durable})
  shadows      {shadows}; reports come {reports}

Add locks with `keywright lock add`, and let clients in with `keywright api-key issue` or tokens of yours.
"
        );
    };
    let here = matches!(shadows, ShadowChoice::InProcess);
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
  data         {data} (journal_mode={journal}, synchronous={durable})
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
