//! `keywright api-key`.

use std::time::Duration;

use clap::{Args, Subcommand};
use keywright_domain::model::{Identity, OrganizationId, Timestamp};
use serde_json::{Value, json};

use super::{block_on, print, say};
use crate::bootstrap::{ApiKey, ApiKeyRecord, ApiKeyStore, Error, LastUsed, now, open_api_keys};
use crate::cli::StoreLocation;

/// What to do with API keys.
#[derive(Args)]
pub(crate) struct ApiKeyCommand {
    #[command(subcommand)]
    task: ApiKeyTask,
}

#[derive(Subcommand)]
enum ApiKeyTask {
    /// Makes the key of an organization, and shows it this once.
    Issue {
        #[command(flatten)]
        holder: Holder,
        /// When it ends by itself.
        #[arg(long, value_name = "TIME", value_parser = time)]
        expires_in: Option<Duration>,
        #[command(flatten)]
        place: StoreLocation,
    },
    /// Makes a new key in the place of the old one, which ends at once.
    Rotate {
        #[command(flatten)]
        holder: Holder,
        /// How much longer the old key is good.
        #[arg(long, value_name = "TIME", value_parser = time)]
        keep_old_for: Option<Duration>,
        /// When the new key ends by itself.
        #[arg(long, value_name = "TIME", value_parser = time)]
        expires_in: Option<Duration>,
        #[command(flatten)]
        place: StoreLocation,
    },
    /// Ends the keys of an organization at once.
    Revoke {
        #[command(flatten)]
        holder: Holder,
        #[command(flatten)]
        place: StoreLocation,
    },
    /// Lists the keys, by what may be shown of them.
    List {
        #[command(flatten)]
        place: StoreLocation,
    },
}

/// Whose key it is.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Holder {
    /// The organization.
    organization: Option<OrganizationId>,
    /// A key of every organization.
    #[arg(long = "super")]
    every: bool,
}

impl Holder {
    fn identity(self) -> Identity {
        match self.organization {
            Some(organization) => Identity::Organization(organization),
            None => Identity::EveryOrganization,
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write times as in 12h or 90days"))
}

/// The keys, and where they are kept.
struct Keys {
    store: ApiKeyStore,
    records: Vec<ApiKeyRecord>,
    now: Timestamp,
}

impl Keys {
    async fn open(place: &StoreLocation) -> Result<Self, Error> {
        let store = open_api_keys(place).await?;
        Ok(Self {
            records: store.read().await?,
            store,
            now: now(),
        })
    }

    /// The keys of that holder that are good at the moment.
    fn live(&mut self, identity: &Identity) -> Vec<&mut ApiKeyRecord> {
        let now = self.now;
        let records = self.records.iter_mut();
        records
            .filter(|r| r.identity == *identity && r.expires_at.is_none_or(|end| now < end))
            .collect()
    }

    fn add(&mut self, identity: Identity, expires_in: Option<Duration>) -> (ApiKey, ApiKeyRecord) {
        let key = ApiKey::generate();
        let record = key.record(identity, expires_in.map(|span| self.now.after(span)));
        self.records.push(record.clone());
        (key, record)
    }

    async fn save(&self) -> Result<(), Error> {
        self.store.write(&self.records).await
    }
}

pub(crate) fn run(command: ApiKeyCommand) -> Result<(), Error> {
    block_on(run_task(command))
}

async fn run_task(command: ApiKeyCommand) -> Result<(), Error> {
    match command.task {
        ApiKeyTask::Issue {
            holder,
            expires_in,
            place,
        } => {
            let (mut keys, identity) = (Keys::open(&place).await?, holder.identity());
            if let Some(live) = keys.live(&identity).first() {
                let why = "an organization has one key; `keywright api-key rotate` makes a new one";
                return Err(format!(
                    "{} has the key {} already: {why}",
                    name(&identity),
                    live.shown
                )
                .into());
            }
            let issued = keys.add(identity, expires_in);
            keys.save().await?;
            show(&place, issued);
        }
        ApiKeyTask::Rotate {
            holder,
            keep_old_for,
            expires_in,
            place,
        } => {
            let (mut keys, identity) = (Keys::open(&place).await?, holder.identity());
            let end = keys.now.after(keep_old_for.unwrap_or_default());
            let mut live = keys.live(&identity);
            if live.is_empty() {
                let why = "`keywright api-key issue` makes one";
                return Err(format!("{} has no key: {why}", name(&identity)).into());
            }
            for record in &mut live {
                record.expires_at = Some(record.expires_at.map_or(end, |at| at.min(end)));
            }
            let issued = keys.add(identity, expires_in);
            keys.save().await?;
            show(&place, issued);
        }
        ApiKeyTask::Revoke { holder, place } => {
            let (mut keys, identity) = (Keys::open(&place).await?, holder.identity());
            // In the past by everybody's clock.
            let ended = Timestamp::from_millis(0);
            let mut live = keys.live(&identity);
            let count = live.len();
            live.iter_mut()
                .for_each(|record| record.expires_at = Some(ended));
            if count == 0 {
                return Err(format!("{} has no key", name(&identity)).into());
            }
            keys.save().await?;
            print(place.json, &json!({ "revoked": count }), || {
                format!("{} has no key any more", name(&identity))
            });
        }
        ApiKeyTask::List { place } => {
            let keys = Keys::open(&place).await?;
            list(&place, &keys, &keys.store.last_used().await?);
        }
    }
    Ok(())
}

fn name(identity: &Identity) -> String {
    match identity {
        Identity::Organization(organization) => organization.to_string(),
        _ => "(every organization)".to_owned(),
    }
}

fn show(place: &StoreLocation, (key, record): (ApiKey, ApiKeyRecord)) {
    let mut value = entry(&record, None);
    value["apiKey"] = json!(key.expose());
    print(place.json, &value, || key.expose().to_owned());
    if !place.json {
        eprintln!("This is the only time that the whole key is shown.");
    }
}

fn entry(record: &ApiKeyRecord, now: Option<Timestamp>) -> Value {
    let mut value = json!({ "shown": record.shown, "holder": name(&record.identity) });
    if let Some(end) = record.expires_at {
        value["expiresAt"] = json!(end.to_string());
    }
    if let Some(now) = now {
        value["live"] = json!(record.expires_at.is_none_or(|end| now < end));
    }
    value
}

fn list(place: &StoreLocation, keys: &Keys, used: &LastUsed) {
    let used = |record: &ApiKeyRecord| used.get(&record.sha256).map(Timestamp::to_string);
    if place.json {
        for record in &keys.records {
            let mut entry = entry(record, Some(keys.now));
            if let Some(at) = used(record) {
                entry["lastUsedAt"] = json!(at);
            }
            say!("{entry}");
        }
        return;
    }
    say!("{:14}  {:24}  {:30}  LAST USED", "KEY", "HOLDER", "ENDS");
    for record in &keys.records {
        let ends = match record.expires_at {
            None => "never".to_owned(),
            Some(end) if end <= keys.now => format!("ended {end}"),
            Some(end) => end.to_string(),
        };
        let used = used(record).unwrap_or_else(|| "-".to_owned());
        say!(
            "{:14}  {:24}  {ends:30}  {used}",
            record.shown,
            name(&record.identity)
        );
    }
}
