//! The demo world: who is in it, and the events that its locks start from.

use serde_json::{Value, json};

/// Two locks, of which the demo user and the demo organization may write to one; and as many more of the
/// organization as are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Demo {
    /// How many locks there are besides the first two.
    pub more_locks: u64,
}

/// A lock of the demo world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoLock {
    /// Its numeric id.
    pub id: u64,
    /// The thing whose shadow reaches it.
    pub thing: String,
    owner: &'static str,
    organization: &'static str,
}

impl Demo {
    /// The person whose token is printed.
    pub const USER: &str = "demo-user";
    /// The organization whose API key is printed.
    pub const ORGANIZATION: &str = "demo-org";
    /// The lock that both may write to.
    pub const LOCK: u64 = 123;
    /// The lock that neither may write to.
    pub const FOREIGN_LOCK: u64 = 124;
    /// The first of the others.
    pub const FIRST_MORE: u64 = 1001;
    /// How many key slots each lock has.
    pub const KEY_CAPACITY: u64 = 100;

    /// The locks, in the order of their ids.
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

    /// The events that it starts from, as the vendor's schemas have them: type and data. `now` is a moment
    /// in RFC 3339.
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
