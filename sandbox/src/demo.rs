//! The demo world: its user, its organization and its locks, with their first events.

use serde_json::{Value, json};

/// The demo world: one lock that the demo user and the demo organization may write to, one that they may not, and any number of further
/// locks that they may write to.
#[derive(Clone, Copy, Debug)]
pub struct Demo {
    /// The number of further locks.
    pub more_locks: u64,
}

/// A lock of the demo world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoLock {
    /// The id of the lock.
    pub id: u64,
    /// The thing whose shadow the lock reads.
    pub thing: String,
    owner: &'static str,
    organization: &'static str,
}

impl Demo {
    /// The user whose token the sandbox prints.
    pub const USER: &str = "demo-user";
    /// The organization whose API key the sandbox prints.
    pub const ORGANIZATION: &str = "demo-org";
    /// The lock that the user and the organization may write to.
    pub const LOCK: u64 = 123;
    /// The lock that neither of them may write to.
    pub const FOREIGN_LOCK: u64 = 124;
    /// The id of the first further lock.
    pub const FIRST_MORE: u64 = 1001;
    /// The number of key slots of each lock.
    pub const KEY_CAPACITY: u64 = 100;

    /// All locks, sorted by id.
    pub fn locks(self) -> impl Iterator<Item = DemoLock> {
        let ours = |id| DemoLock::new(id, Self::USER, Self::ORGANIZATION);
        let foreign = DemoLock::new(Self::FOREIGN_LOCK, "another-user", "another-org");
        let more = Self::FIRST_MORE..Self::FIRST_MORE + self.more_locks;
        [ours(Self::LOCK), foreign]
            .into_iter()
            .chain(more.map(ours))
    }
}

impl DemoLock {
    fn new(id: u64, owner: &'static str, organization: &'static str) -> Self {
        Self {
            id,
            thing: format!("demo-lock-{id}"),
            owner,
            organization,
        }
    }

    /// The first events of the lock: their types, and their data according to the vendor's schemas. `now` is a time in RFC 3339.
    pub fn events(&self, now: &str) -> [(&'static str, Value); 2] {
        let uuid = format!("00000000-0000-4000-8000-{:012}", self.id);
        let created = json!({
            "lockId": self.id, "uuid": uuid, "timestamp": now, "ownerId": self.owner,
            "serialNumber": format!("DEMO-{}", self.id), "thingName": self.thing,
            "keyCapacity": Demo::KEY_CAPACITY,
        });
        let owned = json!({
            "lockId": self.id, "uuid": uuid, "timestamp": now, "orgId": self.organization,
        });
        [("LockCreated", created), ("OrganizationSet", owned)]
    }
}
