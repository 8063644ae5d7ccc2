//! Contract test cases for [`ShadowPort`], over a shadow service that answers each request.

use async_trait::async_trait;
use keywright_domain::model::{
    ClientToken, DeviceOutcome, Epoch, FailureReason, KeyIndex, KeyUuid, ReportedSlot, Sequence,
    ShadowChange, ShadowEntry, ShadowSnapshot, ShadowVersion, ThingName, WriteId,
};
use keywright_domain::ports::{ShadowError, ShadowPort};
use serde_json::{Value, json};

use crate::samples::{NOW, lock_id, millis_after, thing};

/// Updates shadows as a lock does.
#[async_trait]
pub trait Device: Send + Sync {
    /// Sends this JSON document as an update of the thing's shadow, and returns after the shadow service has accepted it.
    async fn report(&self, thing: &ThingName, document: &str);

    /// The `state` of the thing's shadow, with `desired` and `reported`, as the lock reads it.
    async fn state(&self, thing: &ThingName) -> Value;
}

/// A port under test over a shadow service without any shadow.
pub struct ShadowFixture<'a> {
    /// The port under test.
    pub port: &'a dyn ShadowPort,
    /// The locks of the same shadow service.
    pub device: &'a dyn Device,
}

pub(crate) fn token(n: u32) -> ClientToken {
    ClientToken::new(WriteId::from_u128(1000), Epoch(1), n)
}

pub(crate) fn door() -> ThingName {
    thing(lock_id(1))
}

fn entry(id: u128) -> ShadowEntry {
    ShadowEntry {
        id: WriteId::from_u128(id),
        key: KeyUuid::new("a \"key\"").expect("a key uuid"),
        index: KeyIndex::new(2).ok(),
        seq: Sequence(3),
        expires_at: NOW,
    }
}

pub(crate) fn put(id: u128, expected: ShadowVersion, n: u32) -> ShadowChange {
    ShadowChange {
        put: Some(entry(id)),
        ..ShadowChange::fence(expected, token(n))
    }
}

impl ShadowFixture<'_> {
    pub(crate) async fn read(&self, thing: &ThingName) -> ShadowSnapshot {
        let found = self
            .port
            .read(thing, token(99))
            .await
            .expect("the shadow is read");
        found.expect("the shadow exists")
    }

    pub(crate) async fn create(&self, thing: &ThingName) -> ShadowVersion {
        self.port
            .update(thing, ShadowChange::create(token(0)))
            .await
            .expect("the shadow is created")
    }

    pub(crate) async fn with_entry(&self, id: u128) -> ShadowVersion {
        let version = self.create(&door()).await;
        self.port
            .update(&door(), put(id, version, 1))
            .await
            .expect("the entry is put")
    }
}

/// A shadow that was never updated reads as `None`.
pub async fn missing_shadow_reads_as_none(shadows: &ShadowFixture<'_>) {
    assert_eq!(shadows.port.read(&door(), token(0)).await, Ok(None));
}

/// A creating update makes an empty shadow and returns the version that a read finds.
pub async fn create_makes_an_empty_shadow(shadows: &ShadowFixture<'_>) {
    let version = shadows.create(&door()).await;
    let empty = ShadowSnapshot {
        version,
        ..ShadowSnapshot::default()
    };
    assert_eq!(shadows.read(&door()).await, empty);
}

/// A read finds the entries that were put, with a slot and without one, at the version that the update returned.
pub async fn put_entries_are_read_back(shadows: &ShadowFixture<'_>) {
    let version = shadows.with_entry(1).await;
    let mut change = put(2, version, 2);
    change.put = change.put.map(|entry| ShadowEntry {
        index: None,
        ..entry
    });
    let version = shadows
        .port
        .update(&door(), change)
        .await
        .expect("the entry is put");
    let found = shadows.read(&door()).await;
    assert_eq!(
        found,
        ShadowSnapshot {
            version,
            entries: [1, 2].map(WriteId::from_u128).into(),
            results: vec![]
        }
    );
}

/// An entry has exactly the members of the device contract, with `expiresAt` in whole seconds.
pub async fn entry_has_the_members_of_the_device_contract(shadows: &ShadowFixture<'_>) {
    let version = shadows.create(&door()).await;
    let mut change = put(1, version, 1);
    let expires_at = millis_after(NOW, 999);
    change.put = change.put.map(|entry| ShadowEntry {
        expires_at,
        ..entry
    });
    let put_entry = shadows.port.update(&door(), change).await;
    put_entry.expect("the entry is put");
    let state = shadows.device.state(&door()).await;
    let entry = &state["desired"]["writeKey"][WriteId::from_u128(1).to_string()];
    let expected = json!({
        "keyUuid": "a \"key\"", "keyIndexNumber": 2, "seq": 3, "expiresAt": NOW.as_secs(),
    });
    assert_eq!(*entry, expected);
    let mut change = put(2, version.next(), 2);
    change.put = change.put.map(|entry| ShadowEntry {
        index: None,
        ..entry
    });
    let put_entry = shadows.port.update(&door(), change).await;
    put_entry.expect("the entry is put");
    let state = shadows.device.state(&door()).await;
    let entry = &state["desired"]["writeKey"][WriteId::from_u128(2).to_string()];
    let expected = json!({ "keyUuid": "a \"key\"", "seq": 3, "expiresAt": NOW.as_secs() });
    assert_eq!(*entry, expected, "without a slot");
}

/// An update that expects another version is a conflict and changes nothing.
pub async fn other_version_is_a_conflict(shadows: &ShadowFixture<'_>) {
    let version = shadows.with_entry(1).await;
    let before = shadows.read(&door()).await;
    for wrong in [ShadowVersion(version.0 - 1), version.next()] {
        let answer = shadows.port.update(&door(), put(2, wrong, 2)).await;
        assert_eq!(answer, Err(ShadowError::Conflict));
    }
    assert_eq!(shadows.read(&door()).await, before);
}

/// Of concurrent updates that expect the same version, exactly one is applied. The others are conflicts.
pub async fn exactly_one_of_concurrent_updates_is_applied(shadows: &ShadowFixture<'_>) {
    const UPDATES: u32 = 16;
    let version = shadows.create(&door()).await;
    let updates = (0..UPDATES).map(|n| {
        let change = put(100 + u128::from(n), version, 10 + n);
        async move { shadows.port.update(&door(), change).await }
    });
    let answers = futures_util::future::join_all(updates).await;
    let (applied, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(applied, [Ok(version.next())], "{others:?}");
    let is_conflict = |answer: &Result<_, _>| *answer == Err(ShadowError::Conflict);
    assert!(others.iter().all(is_conflict), "{others:?}");
    let found = shadows.read(&door()).await;
    assert_eq!((found.version, found.entries.len()), (version.next(), 1));
}

/// A fence increments the version by one and changes nothing else.
pub async fn fence_changes_only_the_version(shadows: &ShadowFixture<'_>) {
    let version = shadows.with_entry(1).await;
    let before = shadows.read(&door()).await;
    let fenced = shadows
        .port
        .update(&door(), ShadowChange::fence(version, token(2)))
        .await;
    assert_eq!(fenced, Ok(version.next()));
    assert_eq!(
        shadows.read(&door()).await,
        ShadowSnapshot {
            version: version.next(),
            ..before
        }
    );
}

/// One update removes the named entries and puts another one. Other entries stay.
pub async fn remove_takes_only_the_named_entries(shadows: &ShadowFixture<'_>) {
    let version = shadows.with_entry(1).await;
    let version = shadows
        .port
        .update(&door(), put(2, version, 2))
        .await
        .expect("put");
    let change = ShadowChange {
        remove: vec![WriteId::from_u128(1)],
        ..put(3, version, 3)
    };
    shadows
        .port
        .update(&door(), change)
        .await
        .expect("removed and put");
    let entries = shadows.read(&door()).await.entries;
    assert_eq!(entries, [2, 3].map(WriteId::from_u128));
}

/// A read finds the results that the lock has reported, with their reasons and slots.
pub async fn results_are_read_with_all_members(shadows: &ShadowFixture<'_>) {
    shadows.with_entry(1).await;
    let (one, two) = (WriteId::from_u128(1), WriteId::from_u128(2));
    let document = format!(
        r#"{{"state":{{"desired":{{"writeKey":{{"{one}":null}}}},"reported":{{"writeKeyResult":{{
            "{one}":{{"status":"SUCCEEDED","keyIndexNumber":4}},
            "{two}":{{"status":"FAILED","reason":"NoSpace"}}}}}}}}}}"#
    );
    shadows.device.report(&door(), &document).await;
    let found = shadows.read(&door()).await;
    let of = |id| {
        found
            .results
            .iter()
            .find(|r| r.write == id)
            .map(|r| r.outcome.clone())
    };
    assert!(found.entries.is_empty());
    assert_eq!(
        of(one),
        Some(DeviceOutcome::Succeeded {
            slot: ReportedSlot::Index(KeyIndex::new(4).expect("an index"))
        })
    );
    assert_eq!(of(two), Some(DeviceOutcome::Failed(FailureReason::NoSpace)));
}

/// A result that has no known format is read as unreadable, and the others are read as they are. Entries and results whose names
/// are no write ids are left out.
pub async fn unreadable_results_do_not_fail_the_read(shadows: &ShadowFixture<'_>) {
    shadows.with_entry(1).await;
    let [one, two, three] = [1, 2, 3].map(WriteId::from_u128);
    let document = format!(
        r#"{{"state":{{"desired":{{"writeKey":{{"foreign":{{"a":1}}}}}},"reported":{{"writeKeyResult":{{
            "{one}":{{"status":"SUCCEEDED"}},"{two}":7,"{three}":{{"status":"DONE"}},"foreign":{{"status":"FAILED"}}}}}}}}}}"#
    );
    shadows.device.report(&door(), &document).await;
    let found = shadows.read(&door()).await;
    let mut results: Vec<_> = found
        .results
        .into_iter()
        .map(|result| (result.write, result.outcome))
        .collect();
    results.sort_by_key(|(write, _)| write.as_u128());
    let succeeded = DeviceOutcome::Succeeded {
        slot: ReportedSlot::Missing,
    };
    let expected = [
        (one, succeeded),
        (two, DeviceOutcome::Unreadable),
        (three, DeviceOutcome::Unreadable),
    ];
    assert_eq!(results, expected);
    assert_eq!(found.entries, [one]);
}

/// One update puts an entry, removes another one and clears the named results. If it is refused, it does none of this.
pub async fn put_clears_the_named_results(shadows: &ShadowFixture<'_>) {
    shadows.with_entry(1).await;
    let one = WriteId::from_u128(1);
    let document = format!(
        r#"{{"state":{{"desired":{{"writeKey":{{"{one}":null}}}},
            "reported":{{"writeKeyResult":{{"{one}":{{"status":"SUCCEEDED"}}}}}}}}}}"#
    );
    shadows.device.report(&door(), &document).await;
    let version = shadows.read(&door()).await.version;
    let put_three = shadows.port.update(&door(), put(3, version, 4)).await;
    assert_eq!(put_three, Ok(version.next()));
    let before = shadows.read(&door()).await;
    for (expected, token) in [(version, 5), (before.version, 6)] {
        let change = ShadowChange {
            remove: vec![WriteId::from_u128(3)],
            clear_results: vec![one],
            ..put(2, expected, token)
        };
        let updated = shadows.port.update(&door(), change).await;
        if expected == before.version {
            assert_eq!(updated, Ok(expected.next()));
        } else {
            assert_eq!(updated, Err(ShadowError::Conflict));
            assert_eq!(shadows.read(&door()).await, before);
        }
    }
    let found = shadows.read(&door()).await;
    assert_eq!(
        (found.entries, found.results),
        (vec![WriteId::from_u128(2)], vec![])
    );
}

/// An update without an expected version clears the named results. Other results and all entries stay.
pub async fn clear_takes_only_the_named_results(shadows: &ShadowFixture<'_>) {
    shadows.with_entry(1).await;
    let (one, two) = (WriteId::from_u128(1), WriteId::from_u128(2));
    let document = format!(
        r#"{{"state":{{"reported":{{"writeKeyResult":{{
            "{one}":{{"status":"IN_PROGRESS"}},"{two}":{{"status":"SUCCEEDED"}}}}}}}}}}"#
    );
    shadows.device.report(&door(), &document).await;
    let change = ShadowChange {
        clear_results: vec![two],
        ..ShadowChange::create(token(5))
    };
    shadows.port.update(&door(), change).await.expect("cleared");
    let found = shadows.read(&door()).await;
    assert_eq!(found.entries, [one]);
    assert_eq!(
        found.results.iter().map(|r| r.write).collect::<Vec<_>>(),
        [one]
    );
}

/// An update of one thing's shadow neither creates nor changes that of another thing.
pub async fn shadows_of_things_are_independent(shadows: &ShadowFixture<'_>) {
    shadows.with_entry(1).await;
    let other = thing(lock_id(2));
    assert_eq!(shadows.port.read(&other, token(7)).await, Ok(None));
    shadows.create(&other).await;
    let before = shadows.read(&other).await;
    let version = shadows.read(&door()).await.version;
    let updated = shadows.port.update(&door(), put(2, version, 8)).await;
    updated.expect("the entry is put");
    assert_eq!(shadows.read(&other).await, before);
}

/// An update that would make the document larger than 8 KiB is refused and changes nothing.
pub async fn too_large_update_is_refused(shadows: &ShadowFixture<'_>) {
    shadows.with_entry(1).await;
    let filler = "x".repeat(7900);
    let document = format!(r#"{{"state":{{"reported":{{"filler":"{filler}"}}}}}}"#);
    shadows.device.report(&door(), &document).await;
    let before = shadows.read(&door()).await;
    let change = ShadowChange {
        put: Some(ShadowEntry {
            key: KeyUuid::new(&"k".repeat(128)).expect("a key uuid"),
            ..entry(2)
        }),
        ..put(2, before.version, 5)
    };
    match shadows.port.update(&door(), change).await {
        Err(ShadowError::Refused { reason, .. }) => {
            assert_eq!(reason, FailureReason::ShadowTooLarge);
        }
        other => panic!("it must be refused: {other:?}"),
    }
    assert_eq!(shadows.read(&door()).await, before);
}

/// Generates a test for each case of the contract of `ShadowPort`, on tokio's multi-threaded runtime.
///
/// In `shadow_port_cases!(fixture)`, `fixture().await` returns a pair `(port, device)` of smart pointers to a `ShadowPort` and a
/// [`Device`](crate::shadow_port::Device). `shadow_port_cases! { fixture: case, case }` generates only the named cases.
#[macro_export]
macro_rules! shadow_port_cases {
    ($fixture:path) => {
        $crate::shadow_port_cases! { $fixture:
            missing_shadow_reads_as_none,
            create_makes_an_empty_shadow,
            put_entries_are_read_back,
            entry_has_the_members_of_the_device_contract,
            other_version_is_a_conflict,
            exactly_one_of_concurrent_updates_is_applied,
            fence_changes_only_the_version,
            remove_takes_only_the_named_entries,
            results_are_read_with_all_members,
            unreadable_results_do_not_fail_the_read,
            put_clears_the_named_results,
            clear_takes_only_the_named_results,
            shadows_of_things_are_independent,
            too_large_update_is_refused
        }
    };
    ($fixture:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const SHADOW_PORT_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name; the testkit's own tests run every case against broken adapters.
        pub async fn run_shadow_port_case(case: &str, shadows: &$crate::shadow_port::ShadowFixture<'_>) {
            match case {
                $(stringify!($case) => $crate::shadow_port::$case(shadows).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let (port, device) = $fixture().await;
            let shadows = $crate::shadow_port::ShadowFixture { port: &*port, device: &*device };
            $crate::shadow_port::$case(&shadows).await;
        })+
    };
}
