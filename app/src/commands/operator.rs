//! `keywright operator`.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use keywright_adapters::auth::{ApiKey, ApiKeyRecord, read_operators, write_api_keys};
use keywright_adapters::time::SystemClock;
use keywright_domain::model::{Identity, Operator, OperatorRole, SubjectId};
use keywright_domain::ports::Clock;
use serde_json::{Value, json};

use super::output::{print_line, print_result};
use crate::admin::OPERATORS_FILE;
use crate::settings::store_location::StoreLocation;
use crate::settings::values::TimeSpan;

#[derive(Args)]
pub(crate) struct OperatorCommand {
    #[command(subcommand)]
    task: OperatorTask,
}

#[derive(Subcommand)]
enum OperatorTask {
    /// Make the key with which a person signs in. It is shown only once.
    Add {
        /// The person. Writes that this person withdraws name `operator:NAME`.
        name: SubjectId,
        /// What the person may do.
        #[arg(long, value_enum, default_value_t = Role::Viewer)]
        role: Role,
        /// How long the key is valid [default: until the person is removed].
        #[arg(long, value_name = "TIME")]
        expires_in: Option<TimeSpan>,
        #[command(flatten)]
        location: StoreLocation,
    },
    /// List all operators, without the secret parts of their keys.
    List {
        #[command(flatten)]
        location: StoreLocation,
    },
    /// Take the access away. Sessions of the person end with the next request.
    Remove {
        /// The person.
        name: SubjectId,
        #[command(flatten)]
        location: StoreLocation,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// See everything.
    Viewer,
    /// See everything, and withdraw writes.
    Operator,
}

impl From<Role> for OperatorRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
        }
    }
}

/// # Errors
/// The file cannot be used, the operator already exists (`add`), or does not exist (`remove`).
pub(crate) fn run(command: OperatorCommand) -> anyhow::Result<()> {
    match command.task {
        OperatorTask::Add {
            name,
            role,
            expires_in,
            location,
        } => {
            let (path, mut records) = open(&location)?;
            if records.iter().any(|record| is_of(record, &name)) {
                bail!(
                    "{name} is an operator already: `keywright operator remove` takes the old key away"
                );
            }
            let key = ApiKey::generate();
            let operator = Operator {
                name,
                role: role.into(),
            };
            let end = expires_in.map(|span| SystemClock.now().after(span.0));
            let record = key.record(Identity::Operator(operator), end);
            let mut value = entry(&record);
            value["key"] = json!(key.expose());
            records.push(record);
            write_api_keys(&path, &records)?;
            print_result(location.json, &value, || key.expose().to_owned());
            if !location.json {
                eprintln!("This is the only time that the whole key is shown.");
            }
        }
        OperatorTask::List { location } => list(&location, &open(&location)?.1),
        OperatorTask::Remove { name, location } => {
            let (path, mut records) = open(&location)?;
            let count = records.len();
            records.retain(|record| !is_of(record, &name));
            ensure!(records.len() < count, "{name} is no operator");
            write_api_keys(&path, &records)?;
            print_result(location.json, &json!({ "removed": name.as_str() }), || {
                format!("{name} has no access any more")
            });
        }
    }
    Ok(())
}

/// The file of operators, and its content.
fn open(location: &StoreLocation) -> anyhow::Result<(PathBuf, Vec<ApiKeyRecord>)> {
    let path = location.data()?.join(OPERATORS_FILE);
    let records = read_operators(&path)?;
    Ok((path, records))
}

fn is_of(record: &ApiKeyRecord, name: &SubjectId) -> bool {
    matches!(&record.identity, Identity::Operator(operator) if operator.name == *name)
}

fn entry(record: &ApiKeyRecord) -> Value {
    let mut value = json!({ "shown": record.masked });
    if let Identity::Operator(operator) = &record.identity {
        value["name"] = json!(operator.name.as_str());
        value["role"] = json!(operator.role.name());
    }
    if let Some(end) = record.expires_at {
        value["expiresAt"] = json!(end.to_string());
    }
    value
}

fn list(location: &StoreLocation, records: &[ApiKeyRecord]) {
    let entries = records.iter().map(entry);
    if location.json {
        entries.for_each(|entry| print_line!("{entry}"));
        return;
    }
    print_line!("{:24}  {:8}  {:14}  ENDS", "NAME", "ROLE", "KEY");
    for entry in entries {
        let text = |member: &str| entry[member].as_str().unwrap_or("never").to_owned();
        print_line!(
            "{:24}  {:8}  {:14}  {}",
            text("name"),
            text("role"),
            text("shown"),
            text("expiresAt")
        );
    }
}
