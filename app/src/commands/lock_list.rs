//! `keywright lock list`: from the store, or from a running server.

use clap::Args;
use hyper::Uri;
use keywright_adapters::json;
use keywright_domain::LockFilter;
use keywright_domain::model::{KeyUuid, Lock, LockId, OrganizationId, ThingName, UserId};
use serde_json::{Value, json};

use super::api_list::ApiList;
use super::output::print_line;
use super::server_access::{Credential, ServerAccess, url};
use crate::bootstrap::open_stores::open_existing;
use crate::settings::store_location::StoreLocation;

/// How many locks are read from the store at a time.
const READ_AT_ONCE: usize = 1000;

#[derive(Args)]
pub(super) struct LockList {
    #[command(flatten)]
    location: StoreLocation,
    /// Only locks of this organization.
    #[arg(long, value_name = "ORG")]
    organization: Option<OrganizationId>,
    /// Only locks that hold this key.
    #[arg(long, value_name = "KEY")]
    key: Option<KeyUuid>,
    /// List only locks with greater ids.
    #[arg(long, value_name = "ID")]
    after: Option<LockId>,
    /// The highest number of locks to list.
    #[arg(long, value_name = "N", default_value = "100")]
    limit: usize,
    /// Ask the server with this URL for the locks that the credential has access to, instead of reading the store.
    #[arg(long, value_name = "URL", value_parser = url)]
    url: Option<Uri>,
    #[command(flatten)]
    credential: Credential,
}

/// # Errors
/// The store cannot be read, or the server cannot be reached or refuses the request.
pub(super) async fn run(mut list: LockList) -> anyhow::Result<()> {
    let more = match list.url.take() {
        Some(url) => print_from_server(&list, url).await?,
        None => print_from_store(&list).await?,
    };
    if let (Some(after), false) = (more, list.location.json) {
        eprintln!("there may be more: --after {after}");
    }
    Ok(())
}

/// Prints the locks that the server shows. Returns the cursor after which there may be more.
async fn print_from_server(list: &LockList, url: Uri) -> anyhow::Result<Option<String>> {
    let server = ServerAccess::new(url, list.credential.clone());
    let locks = ApiList::new("/locks", "locks")
        .filter("organization", list.organization.as_ref())
        .filter("key", list.key.as_ref());
    if !list.location.json {
        print_row("LOCK", "SERIAL NUMBER", "OWNER", "ORGANIZATION", "VERSION");
    }
    let after = list.after.map(|after| after.to_string());
    let show = |lock: &Value| {
        if list.location.json {
            return print_line!("{lock}");
        }
        let text = |name: &str| match lock[name].as_str() {
            None | Some("") => "-",
            Some(text) => text,
        };
        let (serial_number, organization) = (text("serialNumber"), text("orgId"));
        let (owner, version) = (text("ownerId"), lock["version"].to_string());
        print_row(text("id"), serial_number, owner, organization, &version);
    };
    locks.read(&server, after, list.limit, show).await
}

/// Prints the locks of the store. Returns the id after which there may be more.
async fn print_from_store(list: &LockList) -> anyhow::Result<Option<String>> {
    let store = open_existing(&list.location.store()?, &list.location.data()?).await?;
    let history = store.history();
    let mut filter = LockFilter::default();
    filter.organization.clone_from(&list.organization);
    filter.key.clone_from(&list.key);
    if !list.location.json {
        print_row("LOCK", "THING", "OWNER", "ORGANIZATION", "VERSION");
    }
    let (mut left, mut after) = (list.limit, list.after);
    while left > 0 {
        let locks = history.locks(after, READ_AT_ONCE).await?;
        let is_end = locks.len() < READ_AT_ONCE;
        for lock in locks.iter().filter(|lock| filter.matches(lock)).take(left) {
            print_stored(list, lock);
            left -= 1;
            after = Some(lock.id);
        }
        match locks.last() {
            Some(_) if left == 0 => {}
            Some(last) if !is_end => after = Some(last.id),
            _ => return Ok(None),
        }
    }
    Ok(after.map(|after| after.to_string()))
}

fn print_stored(list: &LockList, lock: &Lock) {
    if list.location.json {
        return print_line!("{}", summary(lock));
    }
    let thing = lock.thing.as_ref().map_or("-", ThingName::as_str);
    let owner = lock.owner.as_ref().map_or("-", UserId::as_str);
    let organization = lock.organization.as_ref();
    let organization = organization.map_or("-", OrganizationId::as_str);
    let (id, version) = (lock.id.to_string(), lock.version.to_string());
    print_row(&id, thing, owner, organization, &version);
}

fn print_row(id: &str, name: &str, owner: &str, organization: &str, version: &str) {
    print_line!("{id:>16}  {name:24}  {owner:24}  {organization:24}  {version}");
}

/// A lock as JSON, without the writes that it has not settled.
pub(super) fn summary(lock: &Lock) -> Value {
    let mut value = json!(json::LockState(lock));
    value["lockId"] = json!(lock.id.get());
    value["time"] = json!(lock.time.to_string());
    if let Some(members) = value.as_object_mut() {
        members.remove("unsettled");
    }
    value
}
