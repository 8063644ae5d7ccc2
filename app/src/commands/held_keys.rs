//! `keywright held-keys`: what virtual locks have in their own memories, whatever the server says of them.

use std::collections::BTreeMap;

use clap::Args;
use keywright_sandbox::{LockMemory, read_memories};
use serde_json::{Value, json};

use super::print;
use crate::bootstrap::Error;
use crate::bootstrap::sandbox::VIRTUAL_LOCKS;
use crate::cli::StoreLocation;

/// Where the locks are.
#[derive(Args)]
pub(crate) struct HeldKeysCommand {
    #[command(flatten)]
    place: StoreLocation,
}

pub(crate) fn run(command: HeldKeysCommand) -> Result<(), Error> {
    let path = command.place.data()?.join(VIRTUAL_LOCKS);
    if !path.is_file() {
        let why = "no virtual lock has run in this folder; name another with --data";
        return Err(format!("there is no {}: {why}", path.display()).into());
    }
    let locks: BTreeMap<String, LockMemory> = read_memories(&path)?.into_iter().collect();
    let value: Value = locks.iter().map(as_json).collect();
    print(command.place.json, &value, || as_text(&locks));
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
