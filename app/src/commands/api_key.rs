//! `keywright api-key`.

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use keywright_adapters::auth::{ApiKey, ApiKeyRecord, LastUsed};
use keywright_adapters::time::SystemClock;
use keywright_domain::model::{Identity, OrganizationId, Timestamp};
use keywright_domain::ports::Clock;
use serde_json::{Value, json};

use super::output::{print_line, print_result};
use super::runtime::block_on;
use crate::bootstrap::api_key_store::ApiKeyStore;
use crate::bootstrap::open_stores::open_api_keys;
use crate::settings::store_location::StoreLocation;
use crate::settings::values::TimeSpan;

#[derive(Args)]
pub(crate) struct ApiKeyCommand {
    #[command(subcommand)]
    task: ApiKeyTask,
}

#[derive(Subcommand)]
enum ApiKeyTask {
    /// Make the API key of an organization. It is shown only once.
    Issue {
        #[command(flatten)]
        holder: Holder,
        /// How long the key is valid [default: until it is rotated or revoked].
        #[arg(long, value_name = "TIME")]
        expires_in: Option<TimeSpan>,
        #[command(flatten)]
        location: StoreLocation,
    },
    /// Make a new key that replaces the old one. The old key ends at once, unless --keep-old-for is given.
    Rotate {
        #[command(flatten)]
        holder: Holder,
        /// How long the old key stays valid.
        #[arg(long, value_name = "TIME")]
        keep_old_for: Option<TimeSpan>,
        /// How long the new key is valid [default: until it is rotated or revoked].
        #[arg(long, value_name = "TIME")]
        expires_in: Option<TimeSpan>,
        #[command(flatten)]
        location: StoreLocation,
    },
    /// End all keys of an organization at once.
    Revoke {
        #[command(flatten)]
        holder: Holder,
        #[command(flatten)]
        location: StoreLocation,
    },
    /// List all keys, without their secret parts.
    List {
        #[command(flatten)]
        location: StoreLocation,
    },
}

/// The holder of a key.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Holder {
    /// The organization that the key belongs to.
    organization: Option<OrganizationId>,
    /// A key for all organizations.
    #[arg(long = "super")]
    all: bool,
}

impl Holder {
    fn identity(self) -> Identity {
        match self.organization {
            Some(organization) => Identity::Organization(organization),
            None => Identity::EveryOrganization,
        }
    }
}

/// All API keys, with their store.
struct Keys {
    store: ApiKeyStore,
    records: Vec<ApiKeyRecord>,
    now: Timestamp,
}

impl Keys {
    async fn open(location: &StoreLocation) -> anyhow::Result<Self> {
        let store = open_api_keys(&location.store()?, &location.data()?).await?;
        Ok(Self {
            records: store.read().await?,
            store,
            now: SystemClock.now(),
        })
    }

    /// The holder's keys that are valid now.
    fn live(&mut self, identity: &Identity) -> Vec<&mut ApiKeyRecord> {
        let now = self.now;
        let records = self.records.iter_mut();
        records
            .filter(|r| r.identity == *identity && r.expires_at.is_none_or(|end| now < end))
            .collect()
    }

    /// Makes a key, saves all keys, and prints the new one.
    async fn issue(
        &mut self,
        identity: Identity,
        expires_in: Option<TimeSpan>,
        as_json: bool,
    ) -> anyhow::Result<()> {
        let key = ApiKey::generate();
        let record = key.record(identity, expires_in.map(|span| self.now.after(span.0)));
        let mut value = entry(&record);
        value["apiKey"] = json!(key.expose());
        self.records.push(record);
        self.save().await?;
        print_result(as_json, &value, || key.expose().to_owned());
        if !as_json {
            eprintln!("This is the only time that the whole key is shown.");
        }
        Ok(())
    }

    async fn save(&self) -> anyhow::Result<()> {
        self.store.write(&self.records).await
    }
}

/// # Errors
/// The store cannot be used, the holder already has a key (`issue`), or has none (`rotate`, `revoke`).
pub(crate) fn run(command: ApiKeyCommand) -> anyhow::Result<()> {
    block_on(run_task(command))
}

async fn run_task(command: ApiKeyCommand) -> anyhow::Result<()> {
    match command.task {
        ApiKeyTask::Issue {
            holder,
            expires_in,
            location,
        } => {
            let (mut keys, identity) = (Keys::open(&location).await?, holder.identity());
            if let Some(live) = keys.live(&identity).first() {
                bail!(
                    "{} has the key {} already: an organization has one key; `keywright api-key rotate` makes a new one",
                    name(&identity),
                    live.masked
                );
            }
            keys.issue(identity, expires_in, location.json).await?;
        }
        ApiKeyTask::Rotate {
            holder,
            keep_old_for,
            expires_in,
            location,
        } => {
            let (mut keys, identity) = (Keys::open(&location).await?, holder.identity());
            let keep_old_for = keep_old_for.map(|span| span.0);
            let end = keys.now.after(keep_old_for.unwrap_or_default());
            let mut live = keys.live(&identity);
            ensure!(
                !live.is_empty(),
                "{} has no key: `keywright api-key issue` makes one",
                name(&identity)
            );
            for record in &mut live {
                record.expires_at = Some(record.expires_at.map_or(end, |at| at.min(end)));
            }
            keys.issue(identity, expires_in, location.json).await?;
        }
        ApiKeyTask::Revoke { holder, location } => {
            let (mut keys, identity) = (Keys::open(&location).await?, holder.identity());
            let mut live = keys.live(&identity);
            let count = live.len();
            ensure!(count > 0, "{} has no key", name(&identity));
            for record in &mut live {
                // In the past by the clock of every server.
                record.expires_at = Some(Timestamp::from_millis(0));
            }
            keys.save().await?;
            print_result(location.json, &json!({ "revoked": count }), || {
                format!("all keys of {} are revoked", name(&identity))
            });
        }
        ApiKeyTask::List { location } => {
            let keys = Keys::open(&location).await?;
            list(&location, &keys, &keys.store.last_used().await?);
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

fn entry(record: &ApiKeyRecord) -> Value {
    let mut value = json!({ "shown": record.masked, "holder": name(&record.identity) });
    if let Some(end) = record.expires_at {
        value["expiresAt"] = json!(end.to_string());
    }
    value
}

fn list(location: &StoreLocation, keys: &Keys, last_used: &LastUsed) {
    let last_used = |record: &ApiKeyRecord| last_used.get(&record.sha256).map(Timestamp::to_string);
    if location.json {
        for record in &keys.records {
            let mut entry = entry(record);
            entry["live"] = json!(record.expires_at.is_none_or(|end| keys.now < end));
            if let Some(at) = last_used(record) {
                entry["lastUsedAt"] = json!(at);
            }
            print_line!("{entry}");
        }
        return;
    }
    print_line!("{:14}  {:24}  {:30}  LAST USED", "KEY", "HOLDER", "ENDS");
    for record in &keys.records {
        let ends = match record.expires_at {
            None => "never".to_owned(),
            Some(end) if end <= keys.now => format!("ended {end}"),
            Some(end) => end.to_string(),
        };
        let used = last_used(record).unwrap_or_else(|| "-".to_owned());
        print_line!(
            "{:14}  {:24}  {ends:30}  {used}",
            record.masked,
            name(&record.identity)
        );
    }
}
