//! `keywright held-keys`: the keys that virtual locks hold in their own memories. The server is not asked.

use std::collections::BTreeMap;

use anyhow::ensure;
use clap::Args;
use keywright_sandbox::{LockMemory, read_memories};
use serde_json::{Value, json};

use super::output::print_result;
use crate::bootstrap::sandbox::VIRTUAL_LOCKS;
use crate::settings::store_location::StoreLocation;

#[derive(Args)]
pub(crate) struct HeldKeysCommand {
    #[command(flatten)]
    location: StoreLocation,
}

/// # Errors
/// There are no virtual locks in the data folder, or their memories cannot be read.
pub(crate) fn run(command: HeldKeysCommand) -> anyhow::Result<()> {
    let path = command.location.data()?.join(VIRTUAL_LOCKS);
    ensure!(
        path.is_file(),
        "there is no {}: no virtual lock has run in this folder; name another with --data",
        path.display()
    );
    let locks: BTreeMap<String, LockMemory> = read_memories(&path)?.into_iter().collect();
    let value: Value = locks.iter().map(as_json).collect();
    print_result(command.location.json, &value, || as_text(&locks));
    Ok(())
}

fn as_json((thing, memory): (&String, &LockMemory)) -> Value {
    let key = |(index, key)| json!({ "keyUuid": key, "keyIndexNumber": index });
    let keys: Vec<Value> = memory.keys.iter().map(key).collect();
    json!({ "thing": thing, "keys": keys })
}

fn as_text(locks: &BTreeMap<String, LockMemory>) -> String {
    let mut lines = Vec::new();
    for (thing, memory) in locks {
        let line = |(index, key)| format!("{thing}  {index}  {key}");
        lines.extend(memory.keys.iter().map(line));
    }
    match lines.is_empty() {
        true => "no virtual lock holds a key".into(),
        false => lines.join("\n"),
    }
}
