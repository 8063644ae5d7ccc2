//! The population of a load test: locks, their organizations and owners, and credentials.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Error;

/// The first lock id, as in the sandbox.
pub const FIRST_LOCK: u64 = 1001;

/// The share of requests that go to the popular tenth of the locks.
const POPULAR_SHARE: f64 = 0.5;

/// The size of a population.
#[derive(Args, Clone, Copy, Debug)]
pub struct Size {
    /// The number of locks.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub locks: u64,
    /// The number of organizations that the locks belong to.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub organizations: u64,
    /// The number of users who own the locks.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub owners: u64,
}

/// A population, as in the file that `prepare` writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Population {
    /// The first lock id. Lock `first_lock + n` belongs to organization `n` modulo their number, and to user `n` modulo theirs.
    pub first_lock: u64,
    /// The number of locks.
    pub locks: u64,
    /// An API key for each organization.
    pub api_keys: Vec<String>,
    /// A token for each user.
    pub tokens: Vec<String>,
    /// A token with an invalid signature.
    pub forged_token: String,
    /// An expired token, if one could be created.
    #[serde(default)]
    pub expired_token: Option<String>,
}

impl Population {
    /// Reads a population file.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::file(path))?;
        serde_json::from_str(&text).map_err(Error::file(path))
    }

    /// Writes a population file that only its owner can read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self)?;
        // The file contains credentials.
        let mut file = fs::OpenOptions::new();
        file.create(true).write(true).truncate(true).mode(0o600);
        let private = fs::Permissions::from_mode(0o600);
        let written = file.open(path).and_then(|mut file| {
            // An existing file would keep its mode.
            file.set_permissions(private)?;
            file.write_all(text.as_bytes())
        });
        written.map_err(Error::file(path))
    }

    /// A random lock, as an offset to the first one. Popular locks are chosen more often.
    pub fn any_lock(&self) -> u64 {
        let popular = self.locks.div_ceil(10);
        match fastrand::f64() < POPULAR_SHARE {
            true => fastrand::u64(0..popular),
            false => fastrand::u64(0..self.locks),
        }
    }

    /// The API key of a lock's organization.
    pub fn api_key_of(&self, offset: u64) -> &str {
        &self.api_keys[wrap(offset, self.api_keys.len())]
    }

    /// The token of a lock's owner.
    pub fn token_of(&self, offset: u64) -> &str {
        &self.tokens[wrap(offset, self.tokens.len())]
    }
}

fn wrap(offset: u64, length: usize) -> usize {
    usize::try_from(offset).unwrap_or_default() % length.max(1)
}

/// A variable of the file `sandbox.env` in a data folder, such as `KEYWRIGHT_TOKEN`.
///
/// # Errors
/// The file cannot be read, or does not contain the variable.
pub fn sandbox_variable(data: &Path, name: &str) -> Result<String, Error> {
    let path = data.join("sandbox.env");
    let env = fs::read_to_string(&path).map_err(Error::file(&path))?;
    let mut values = env
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().map(str::to_owned);
    value.ok_or_else(|| Error::file(&path)(format!("there is no {name}")))
}

/// The keys in the memories of locks, by thing and slot.
pub type HeldKeys = BTreeMap<String, BTreeMap<u64, String>>;

/// The thing of a lock in the sandbox.
pub fn thing_of(lock: u64) -> String {
    format!("demo-lock-{lock}")
}

/// The program `keywright` with a data folder and a store, for commands.
pub struct Keywright<'a> {
    /// The program.
    pub binary: &'a Path,
    /// The data folder.
    pub data: &'a Path,
    /// The value of --store, if it is not the default.
    pub store: Option<&'a str>,
}

impl Keywright<'_> {
    /// Imports the locks. The server must not have been started.
    ///
    /// # Errors
    /// The command fails; the text contains its error.
    pub fn add_locks(&self, size: Size) -> Result<(), Error> {
        let path = self.data.join("loadtest-locks.ndjson");
        write_locks(&path, size).map_err(Error::file(&path))?;
        let imported = self.import(&path);
        let _ = fs::remove_file(&path);
        imported
    }

    /// Imports a file of events. The server must not have been started.
    ///
    /// # Errors
    /// The command fails; the text contains its error.
    pub fn import(&self, events: &Path) -> Result<(), Error> {
        let arguments = ["lock", "import", &events.to_string_lossy()];
        self.run(&arguments).map(drop)
    }

    /// Creates the credentials, beside a running server with a sandbox.
    ///
    /// # Errors
    /// The command fails; the text contains its error.
    pub fn make_credentials(&self, size: Size) -> Result<Population, Error> {
        let mut api_keys = Vec::new();
        for n in 0..size.organizations {
            let organization = format!("load-org-{n}");
            let issued = self.run(&["api-key", "issue", &organization]);
            // The organization may have a key from an earlier run, which is rotated.
            let answer = issued.or_else(|_| self.run(&["api-key", "rotate", &organization]))?;
            api_keys.push(text(&answer, "apiKey")?);
        }
        let token = |user: &str, time: &str| {
            let answer = self.run(&["token", "--user", user, "--expires-in", time])?;
            text(&answer, "token")
        };
        let users: Result<Vec<String>, Error> = (0..size.owners)
            .map(|n| token(&format!("load-user-{n}"), "24h"))
            .collect();
        let tokens = users?;
        Ok(Population {
            first_lock: FIRST_LOCK,
            locks: size.locks,
            api_keys,
            forged_token: forged(tokens.first().map_or("", String::as_str)),
            expired_token: Some(self.expired_token()?),
            tokens,
        })
    }

    /// An expired token.
    ///
    /// # Errors
    /// The command fails; the text contains its error.
    pub fn expired_token(&self) -> Result<String, Error> {
        let answer = self.run(&["token", "--expired"])?;
        text(&answer, "token")
    }

    /// The keys in the memories of the virtual locks of this data folder.
    ///
    /// # Errors
    /// The command fails; the text contains its error.
    pub fn held_keys(&self) -> Result<HeldKeys, Error> {
        let answer = self.run(&["held-keys"])?;
        let mut held = HeldKeys::new();
        for lock in answer.as_array().into_iter().flatten() {
            let thing = lock["thing"].as_str().unwrap_or_default().to_owned();
            let keys = lock["keys"].as_array().into_iter().flatten();
            let key = |key: &Value| {
                let (slot, key) = (key["keyIndexNumber"].as_u64()?, key["keyUuid"].as_str()?);
                Some((slot, key.to_owned()))
            };
            held.insert(thing, keys.filter_map(key).collect());
        }
        Ok(held)
    }

    fn run(&self, arguments: &[&str]) -> Result<Value, Error> {
        let mut command = Command::new(self.binary);
        command.args(arguments).arg("--json");
        command.env("KEYWRIGHT_DATA", self.data);
        if let Some(store) = self.store {
            command.env("KEYWRIGHT_STORE", store);
        }
        let output = command.output().map_err(Error::file(self.binary))?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Service(error.trim().to_owned()));
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}

fn text(answer: &Value, name: &str) -> Result<String, Error> {
    let text = answer[name].as_str().map(str::to_owned);
    text.ok_or_else(|| Error::Service(format!("keywright did not print `{name}`")))
}

/// The token with an invalid signature.
pub(crate) fn forged(token: &str) -> String {
    let (signed, _) = token.rsplit_once('.').unwrap_or((token, ""));
    format!("{signed}.{}", "A".repeat(86))
}

fn write_locks(path: &Path, size: Size) -> std::io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    let time = "2026-01-01T00:00:00.000Z";
    for n in 0..size.locks {
        let (lock, uuid) = (FIRST_LOCK + n, format!("load-{n}"));
        let created = json!({ "type": "LockCreated", "data": {
            "lockId": lock, "uuid": uuid, "timestamp": time, "thingName": thing_of(lock),
            "keyCapacity": 100, "ownerId": format!("load-user-{}", n % size.owners.max(1)),
        } });
        let owned = json!({ "type": "OrganizationSet", "data": {
            "lockId": lock, "uuid": uuid, "timestamp": time,
            "orgId": format!("load-org-{}", n % size.organizations.max(1)),
        } });
        writeln!(file, "{created}\n{owned}")?;
    }
    file.flush()
}
