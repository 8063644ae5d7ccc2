//! Who loads what: locks, the organizations and users that they belong to, and their credentials.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The first lock; the sandbox's locks go on from there, too.
pub const FIRST_LOCK: u64 = 1001;

/// Of how many writes few locks get most: a lock of the popular tenth is chosen so often.
const POPULAR: f64 = 0.5;

/// How many there are.
#[derive(Args, Clone, Copy, Debug)]
pub struct Size {
    /// How many locks.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub locks: u64,
    /// To how many organizations they belong.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub organizations: u64,
    /// How many people own them.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub owners: u64,
}

/// All of them, as they stand in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Population {
    /// The first lock, and how many there are: lock `first + n` belongs to organization `n` and user `n`, each counted
    /// round.
    pub first_lock: u64,
    /// How many locks.
    pub locks: u64,
    /// An API key for each organization.
    pub api_keys: Vec<String>,
    /// A token for each user.
    pub tokens: Vec<String>,
    /// A token that nobody has signed.
    pub forged_token: String,
    /// A token that was good once, where one could be made.
    #[serde(default)]
    pub expired_token: Option<String>,
}

impl Population {
    /// # Errors
    /// The file cannot be read, or is none of a population.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        // It is full of credentials.
        let mut file = fs::OpenOptions::new();
        file.create(true).write(true).truncate(true).mode(0o600);
        let private = fs::Permissions::from_mode(0o600);
        let written = file.open(path).and_then(|mut file| {
            // A file that was there already keeps its mode.
            file.set_permissions(private)?;
            file.write_all(text.as_bytes())
        });
        written.map_err(|e| format!("{}: {e}", path.display()))
    }

    /// A lock, by its place: few are popular, most are not.
    pub fn any_lock(&self) -> u64 {
        let popular = self.locks.div_ceil(10);
        match fastrand::f64() < POPULAR {
            true => fastrand::u64(0..popular),
            false => fastrand::u64(0..self.locks),
        }
    }

    /// The API key of a lock's organization.
    pub fn api_key_of(&self, place: u64) -> &str {
        &self.api_keys[at(place, self.api_keys.len())]
    }

    /// The token of a lock's owner.
    pub fn token_of(&self, place: u64) -> &str {
        &self.tokens[at(place, self.tokens.len())]
    }
}

fn at(place: u64, length: usize) -> usize {
    usize::try_from(place).unwrap_or_default() % length.max(1)
}

/// The value of a name in the file that a sandbox leaves in its folder of data, such as `KEYWRIGHT_TOKEN`.
///
/// # Errors
/// The file cannot be read, or does not have it.
pub fn of_sandbox(data: &Path, name: &str) -> Result<String, String> {
    let path = data.join("sandbox.env");
    let env = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut values = env
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().map(str::to_owned);
    value.ok_or_else(|| format!("{} has no {name}", path.display()))
}

/// The keys that locks have in their memories, by slot, by the locks' things.
pub type HeldKeys = BTreeMap<String, BTreeMap<u64, String>>;

/// The thing of a lock, as the sandbox names it.
pub fn thing_of(lock: u64) -> String {
    format!("demo-lock-{lock}")
}

/// The program that a population is made with, over a folder of data and a store.
pub struct Keywright<'a> {
    /// The program.
    pub binary: &'a Path,
    /// Where a server keeps what it keeps in files.
    pub data: &'a Path,
    /// Where locks are kept, if not there.
    pub store: Option<&'a str>,
}

impl Keywright<'_> {
    /// Adds the locks, before a server is started.
    ///
    /// # Errors
    /// The program refuses; its words are in the text.
    pub fn add_locks(&self, size: Size) -> Result<(), String> {
        let path = self.data.join("loadtest-locks.ndjson");
        write_locks(&path, size).map_err(|e| format!("{}: {e}", path.display()))?;
        let imported = self.import(&path);
        let _ = fs::remove_file(&path);
        imported
    }

    /// Adds what a file of events holds, before a server is started.
    ///
    /// # Errors
    /// The program refuses; its words are in the text.
    pub fn import(&self, events: &Path) -> Result<(), String> {
        let arguments = ["lock", "import", &events.to_string_lossy()];
        self.run(&arguments).map(drop)
    }

    /// Makes the credentials, beside a server whose sandbox has been started.
    ///
    /// # Errors
    /// The program refuses; its words are in the text.
    pub fn make_credentials(&self, size: Size) -> Result<Population, String> {
        let mut api_keys = Vec::new();
        for n in 0..size.organizations {
            let organization = format!("load-org-{n}");
            let issued = self.run(&["api-key", "issue", &organization]);
            // One that has a key already, from an earlier time, gets another.
            let answer = issued.or_else(|_| self.run(&["api-key", "rotate", &organization]))?;
            api_keys.push(text(&answer, "apiKey")?);
        }
        let token = |user: &str, time: &str| {
            let answer = self.run(&["token", "--user", user, "--expires-in", time])?;
            text(&answer, "token")
        };
        let users: Result<Vec<String>, String> = (0..size.owners)
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

    /// A token that was good once.
    ///
    /// # Errors
    /// The program refuses; its words are in the text.
    pub fn expired_token(&self) -> Result<String, String> {
        let answer = self.run(&["token", "--expired"])?;
        text(&answer, "token")
    }

    /// What virtual locks have in their own memories, which are kept in the folder of data.
    ///
    /// # Errors
    /// The program refuses; its words are in the text.
    pub fn held_keys(&self) -> Result<HeldKeys, String> {
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

    fn run(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(self.binary);
        command.args(arguments).arg("--json");
        command.env("KEYWRIGHT_DATA", self.data);
        if let Some(store) = self.store {
            command.env("KEYWRIGHT_STORE", store);
        }
        let output = command
            .output()
            .map_err(|e| format!("cannot run {}: {e}", self.binary.display()))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}

fn text(answer: &Value, name: &str) -> Result<String, String> {
    let text = answer[name].as_str().map(str::to_owned);
    text.ok_or_else(|| format!("keywright did not answer with `{name}`"))
}

/// The same under a signature that is none.
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
