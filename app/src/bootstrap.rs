//! The composition root: the only place that names adapters.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keywright_adapters::auth::{
    Algorithm, ApiKeys, CredentialAuth, JwtSettings, JwtVerifier, VerificationKey, read_jwks,
    write_last_used,
};
use keywright_adapters::json;
use keywright_adapters::layer::{
    FaultPlan, Faults, FaultyLockRepo, FaultyShadow, Timeout, TracedLockRepo, TracedShadow, Watched,
};
use keywright_adapters::lock_repo::SqliteLockRepo;
use keywright_adapters::shadow::InMemoryShadow;
use keywright_adapters::time::{SystemClock, SystemIds, TokioTimer};
use keywright_domain::ports::{Clock, LockHistory, LockRepo, Secret, ShadowPort};
use keywright_domain::principal::Identity;
use keywright_domain::values::{LockId, LockVersion, OrganizationId, Timestamp};
use keywright_domain::{KeyWrites, Ports};
use keywright_sandbox::{Demo, VirtualLocks};
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};
use tokio::sync::broadcast;
use tokio::task::{JoinSet, spawn_blocking};

use crate::app::{App, Work};
use crate::demo_credentials::{
    AUDIENCE, Bearer, DemoCredentials, ISSUER, ORGANIZATION_CLAIM, TOKEN_TIME, TokenKey, read_env,
    write_env,
};
use crate::settings::{Settings, TokenKeys, Tokens};
use crate::workers;

/// What the commands need of the adapters.
pub(crate) use keywright_adapters::auth::{
    ApiKey, ApiKeyRecord, LastUsed, read_api_keys, read_last_used, write_api_keys, write_private,
};

/// The version of an imported event that goes on from whatever its lock has.
pub(crate) const NEXT_VERSION: LockVersion = SqliteLockRepo::NEXT;

/// The moment.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// The names of files in the folder of data.
pub(crate) const API_KEYS: &str = "api-keys.json";
pub(crate) const API_KEYS_USED: &str = "api-keys-used.json";
pub(crate) const TOKEN_KEY: &str = "token-key.pk8";
pub(crate) const LOCKS: &str = "locks.sqlite";

/// How often the files of keys are looked at.
const FOLLOW: Duration = Duration::from_millis(500);

/// How often it is noted when API keys were last used: what a crash may forget, against a synced file each time.
const NOTE_USE: Duration = Duration::from_secs(5);

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
    service: ShadowService,
    _virtual_locks: VirtualLocks,
}

impl Wired {
    /// Waits until something without which nothing is done right has ended, which it should not; answers what.
    pub(crate) async fn broken(&mut self) -> &'static str {
        tokio::select! {
            () = self.store.ended() => "the store of locks can no longer be written",
            () = self.service.ended() => "the store of shadows can no longer be written",
            _ = self.workers.join_next() => "a worker has ended",
        }
    }
}

/// Everything in this process and one folder: the sandbox, or locks and credentials of one's own.
pub(crate) async fn wire(settings: &Settings, wiring: &Wiring, url: &str) -> Result<Wired, Error> {
    let data = settings.data.as_path();
    make_private_folder(data)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let seconds: Arc<dyn Fn() -> u64 + Send + Sync> = Arc::new(|| SystemClock.now().as_secs());

    let config = ServiceConfig {
        clock: seconds.clone(),
        limits: Limits::default(),
    };
    let service = ShadowService::open(&data.join("shadows.sqlite"), config).await?;
    let name = ShadowName::Named(InMemoryShadow::DEFAULT_NAME.to_owned());
    let (path, leases) = (data.join(LOCKS), clock.clone());
    let store = spawn_blocking(move || SqliteLockRepo::open(&path, leases)).await??;
    let (journal, synchronous) = store.durability().await?;
    let demo = Demo {
        more_locks: settings.sandbox.more_locks,
    };
    // What changes while they are read is read again.
    let keys_path = data.join(API_KEYS);
    let keys_stamp = Stamp::of(&keys_path);
    let token_keys = settings.tokens.as_ref().map(|tokens| tokens.keys.clone());
    let token_keys = token_keys.map(|keys| (Stamp::of(keys.path()), keys));
    let (tokens, credentials) = if settings.sandbox.demo {
        import(&store, demo, &*clock).await?;
        let credentials = demo_credentials(data, url, &*clock)?;
        (Some(Arc::new(credentials.tokens)), Some(credentials.demo))
    } else {
        let tokens = settings.tokens.as_ref().map(own_tokens).transpose()?;
        (tokens.map(Arc::new), None)
    };
    let api_keys = ApiKeys::new(read_api_keys(&keys_path)?);
    let auth = CredentialAuth::new(tokens.clone(), Some(api_keys), clock.clone());
    let auth = Arc::new(auth);

    let store = Arc::new(store);
    let saved = broadcast::channel(SAVED_BACKLOG).0;
    let patience = settings.protocol.request;
    let faults = Faults::new(settings.sandbox.faults.clone());
    let faulty = settings.sandbox.faults != FaultPlan::default();
    let mut locks = (wiring.around_locks)(store.clone());
    if faulty {
        locks = Arc::new(FaultyLockRepo::new(locks, faults.clone()));
    }
    let locks = Arc::new(Timeout::<dyn LockRepo>::new(locks, patience));
    let locks = Arc::new(Watched::new(locks, saved.clone()));
    let locks = Arc::new(TracedLockRepo::new(locks));
    let history: Arc<dyn LockHistory> =
        Arc::new(Timeout::<dyn LockHistory>::new(store.clone(), patience));
    let shadow = Arc::new(InMemoryShadow::new(service.clone(), name.clone()));
    let reports = Arc::new(shadow.reports());
    let mut shadow: Arc<dyn ShadowPort> = shadow;
    if faulty {
        shadow = Arc::new(FaultyShadow::with(shadow, faults));
    }
    let shadow = Arc::new(TracedShadow::new(shadow));
    let ids = Arc::new(SystemIds);
    let ports = Ports {
        locks,
        history: history.clone(),
        shadow,
        clock: clock.clone(),
        timer: Arc::new(TokioTimer::default()),
        ids: ids.clone(),
    };
    let writes = Arc::new(KeyWrites::new(ports, settings.protocol)?);

    // The reports were subscribed to before the first lock can say something.
    let mut workers = workers::start(&writes, reports);
    let used_path = data.join(API_KEYS_USED);
    workers.spawn(note_api_keys_used(used_path.clone(), auth.clone()));
    let (path, keyed) = (keys_path.clone(), auth.clone());
    workers.spawn(follow("the API keys", keys_path, keys_stamp, move || {
        let keys = read_api_keys(&path)?;
        // The uses that are not noted yet go with the keys that were used.
        note_last_used(&used_path, &keyed.api_keys_last_used());
        keyed.replace_api_keys(ApiKeys::new(keys));
        Ok(())
    }));
    if let (Some((stamp, keys)), Some(tokens)) = (token_keys, tokens) {
        let path = keys.path().to_owned();
        workers.spawn(follow("the keys of tokens", path, stamp, move || {
            Ok(tokens.replace_keys(read_token_keys(&keys)?)?)
        }));
    }
    let mut virtual_locks = VirtualLocks::open(
        &data.join("virtual-locks.sqlite"),
        service.clone(),
        name,
        seconds,
        settings
            .sandbox
            .virtual_locks
            .then(|| settings.sandbox.behaviour.clone()),
    )?;
    if settings.sandbox.virtual_locks {
        for lock in demo.locks() {
            let behaviour = settings.sandbox.behaviour_of(lock.id).clone();
            virtual_locks.add(&lock.thing, behaviour);
        }
    }
    let banner = banner(settings, url, credentials.as_ref(), &journal, synchronous);
    let app = App {
        writes,
        auth,
        history,
        saved,
        clock,
        ids,
        bounds: settings.bounds,
        work: Work::new(&settings.bounds),
    };
    Ok(Wired {
        app: Arc::new(app),
        banner,
        workers,
        store,
        service,
        _virtual_locks: virtual_locks,
    })
}

/// What is kept names keys and people: it is for its owner only.
fn make_private_folder(data: &Path) -> Result<(), Error> {
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

struct Credentials {
    demo: DemoCredentials,
    tokens: JwtVerifier,
}

/// What an earlier run left where it is still good; else new ones.
fn demo_credentials(data: &Path, url: &str, clock: &dyn Clock) -> Result<Credentials, Error> {
    let (env_path, keys_path) = (data.join("sandbox.env"), data.join(API_KEYS));
    let token_key = TokenKey::open(&data.join(TOKEN_KEY))?;
    let settings = JwtSettings {
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        organization_claim: ORGANIZATION_CLAIM.into(),
    };
    let point = VerificationKey::es256_point(None, &token_key.public_point());
    let tokens = JwtVerifier::new(vec![point], settings)?;
    let mut records = read_api_keys(&keys_path)?;
    let api_keys = ApiKeys::new(records.clone());
    let (now, kept) = (clock.now(), read_env(&env_path));

    let good = |token: &String| tokens.verify(token.as_bytes(), now).is_ok();
    let token = match kept.as_ref().map(|k| k.token.clone()).filter(good) {
        Some(token) => token,
        None => {
            let bearer = Bearer {
                user: Demo::USER,
                organization: None,
            };
            token_key.sign(bearer, now.as_secs(), TOKEN_TIME)?
        }
    };
    let good = |key: &String| api_keys.verify(&Secret::new(&**key), now).is_ok();
    let api_key = match kept.map(|k| k.api_key).filter(good) {
        Some(key) => key,
        None => {
            let key = ApiKey::generate();
            let demo = Identity::Organization(OrganizationId::new(Demo::ORGANIZATION)?);
            records.retain(|record: &ApiKeyRecord| record.identity != demo);
            records.push(key.record(demo, None));
            write_api_keys(&keys_path, &records)?;
            key.expose().to_owned()
        }
    };
    let demo = DemoCredentials { token, api_key };
    write_env(&env_path, url, &demo)
        .map_err(|e| format!("cannot write {}: {e}", env_path.display()))?;
    Ok(Credentials { demo, tokens })
}

/// The verifier of the tokens that the settings ask for.
///
/// # Errors
/// A file cannot be read, or a key in it cannot be used; the text names the file.
pub(crate) fn own_tokens(tokens: &Tokens) -> Result<JwtVerifier, Error> {
    let settings = JwtSettings {
        issuer: tokens.issuer.clone(),
        audience: tokens.audience.clone(),
        organization_claim: tokens.organization_claim.clone(),
    };
    let verifier = JwtVerifier::new(read_token_keys(&tokens.keys)?, settings);
    Ok(verifier.map_err(|e| unusable(&tokens.keys, &e))?)
}

fn unusable(keys: &TokenKeys, why: &dyn std::fmt::Display) -> String {
    format!("cannot use {} for tokens: {why}", keys.path().display())
}

fn read_token_keys(keys: &TokenKeys) -> Result<Vec<VerificationKey>, Error> {
    let content = fs::read(keys.path()).map_err(|e| unusable(keys, &e))?;
    let read = match keys {
        TokenKeys::Jwks(_) => read_jwks(&content),
        TokenKeys::One(_, algorithm @ (Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)) => {
            let text = String::from_utf8(content);
            let text = text.map_err(|_| unusable(keys, &"a secret must be text"))?;
            let secret = Secret::new(text.trim_end_matches(['\r', '\n']));
            VerificationKey::secret(None, *algorithm, &secret).map(|key| vec![key])
        }
        TokenKeys::One(_, algorithm) => {
            VerificationKey::pem(None, *algorithm, &content).map(|key| vec![key])
        }
    };
    Ok(read.map_err(|e| unusable(keys, &e))?)
}

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(Option<(SystemTime, u64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        Self(metadata.and_then(|file| Some((file.modified().ok()?, file.len()))))
    }
}

/// Takes over a file of keys that was changed since `taken`, within a second. One that cannot be used leaves the
/// keys as they were, and is tried again: it may be that only the reading failed.
async fn follow(what: &str, path: PathBuf, mut taken: Stamp, take: impl Fn() -> Result<(), Error>) {
    let mut complained = None;
    loop {
        tokio::time::sleep(FOLLOW).await;
        let now = Stamp::of(&path);
        if now == taken {
            continue;
        }
        match take() {
            Ok(()) => {
                tracing::info!("{what} have changed");
                taken = now;
            }
            Err(error) if complained != Some(now) => {
                tracing::error!(%error, "{what} stay as they were");
                complained = Some(now);
            }
            Err(_) => {}
        }
    }
}

/// Notes when API keys were last used. A write that fails is tried again.
async fn note_api_keys_used(path: PathBuf, auth: Arc<CredentialAuth>) {
    let mut noted = LastUsed::new();
    loop {
        tokio::time::sleep(NOTE_USE).await;
        let used = auth.api_keys_last_used();
        if used == noted {
            continue;
        }
        let (path, news) = (path.clone(), used.clone());
        let note = move || note_last_used(&path, &news);
        if spawn_blocking(note).await.is_ok_and(|written| written) {
            noted = used;
        }
    }
}

/// Whether it could be written.
fn note_last_used(path: &Path, used: &LastUsed) -> bool {
    let written = read_last_used(path).and_then(|mut all| {
        all.extend(used);
        write_last_used(path, &all)
    });
    if let Err(error) = &written {
        tracing::warn!(%error, "when API keys were last used is not noted");
    }
    written.is_ok()
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
    let Some(DemoCredentials { token, api_key }) = credentials else {
        return format!(
            "Keywright is at {url}
  data         {data} (journal_mode={journal}, synchronous={durable})

Add locks with `keywright lock add`, and let clients in with `keywright api-key issue` or tokens of yours.
"
        );
    };
    let locks = match (settings.sandbox.virtual_locks, settings.sandbox.more_locks) {
        (false, _) => "virtual locks are off: a write stays SENT".to_owned(),
        (true, 0) => format!("lock {lock} is yours, lock {foreign} is not"),
        (true, more) => {
            let (first, last) = (Demo::FIRST_MORE, Demo::FIRST_MORE + more - 1);
            format!("locks {lock} and {first} to {last} are yours, lock {foreign} is not")
        }
    };
    format!(
        "Keywright's sandbox is at {url}
  data         {data} (journal_mode={journal}, synchronous={durable})
  locks        {locks}
  credentials  {data}/sandbox.env

Write a key:

curl -sS {url}/locks/{lock}/WriteKey -H 'Content-Type: application/json' \
-H 'Authorization: Bearer {token}' -H 'X-API-Key: {api_key}' \
-d '{{\"keyUuid\":\"9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b\",\"keyIndexNumber\":2}}'

"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_file_that_changed_before_it_was_followed_is_taken_over_even_at_the_second_try() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        fs::write(&path, "old").expect("written");
        let taken = Stamp::of(&path);
        fs::write(&path, "revoked").expect("written");
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let take = move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 => Err("it could not be read".into()),
            _ => Ok(()),
        };
        let following = follow("the keys", path, taken, take);
        let over = tokio::time::timeout(FOLLOW * 5, following).await;
        assert!(over.is_err(), "it follows on and on");
        assert_eq!(tries.load(Ordering::Relaxed), 2);
    }
}
