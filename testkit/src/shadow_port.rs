//! The contract of `ShadowPort`.

use async_trait::async_trait;
use keywright_domain::model::{
    ClientToken, DeviceOutcome, Epoch, FailureReason, KeyIndex, KeyUuid, ReportedSlot, Sequence,
    ShadowChange, ShadowEntry, ShadowSnapshot, ShadowVersion, ThingName, WriteId,
};
use keywright_domain::ports::{ShadowError, ShadowPort};

use crate::samples::{NOW, lock_id, thing};

/// The lock's side of a shadow.
#[async_trait]
pub trait Device: Send + Sync {
    /// Updates the thing's shadow with this document, as a lock does.
    async fn report(&self, thing: &ThingName, document: &str);
}

/// Shadows of which none exists yet, and the locks that report to them.
pub struct ShadowFixture<'a> {
    /// The backend's side.
    pub port: &'a dyn ShadowPort,
    /// The lock's side.
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
            .expect("the shadow is made")
    }

    pub(crate) async fn with_entry(&self, id: u128) -> ShadowVersion {
        let version = self.create(&door()).await;
        self.port
            .update(&door(), put(id, version, 1))
            .await
            .expect("the entry is put")
    }
}

/// A shadow that was never updated does not exist.
pub async fn a_missing_shadow_is_none(shadows: &ShadowFixture<'_>) {
    assert_eq!(shadows.port.read(&door(), token(0)).await, Ok(None));
}

/// Creating makes an empty shadow and answers the version that a read finds.
pub async fn creating_makes_an_empty_shadow(shadows: &ShadowFixture<'_>) {
    let version = shadows.create(&door()).await;
    let empty = ShadowSnapshot {
        version,
        ..ShadowSnapshot::default()
    };
    assert_eq!(shadows.read(&door()).await, empty);
}

/// Entries that were put are there, with a slot and without one, at the version that was answered.
pub async fn an_entry_that_was_put_is_there(shadows: &ShadowFixture<'_>) {
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

/// An update on another version is a conflict and changes nothing.
pub async fn another_version_is_a_conflict(shadows: &ShadowFixture<'_>) {
    let version = shadows.with_entry(1).await;
    let before = shadows.read(&door()).await;
    for wrong in [ShadowVersion(version.0 - 1), version.next()] {
        let answer = shadows.port.update(&door(), put(2, wrong, 2)).await;
        assert_eq!(answer, Err(ShadowError::Conflict));
    }
    assert_eq!(shadows.read(&door()).await, before);
}

/// A fence moves the version by one and leaves everything else.
pub async fn a_fence_only_moves_the_version(shadows: &ShadowFixture<'_>) {
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

/// One update takes entries away and puts another; the rest stays.
pub async fn removing_takes_only_what_is_named(shadows: &ShadowFixture<'_>) {
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

/// What the lock reports is read with its details.
pub async fn results_are_read_in_full(shadows: &ShadowFixture<'_>) {
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

/// Results are cleared by their ids, without a version, and entries stay.
pub async fn clearing_takes_only_the_named_results(shadows: &ShadowFixture<'_>) {
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

/// The shadows of two things have nothing to do with each other.
pub async fn things_are_apart(shadows: &ShadowFixture<'_>) {
    shadows.with_entry(1).await;
    let other = thing(lock_id(2));
    assert_eq!(shadows.port.read(&other, token(7)).await, Ok(None));
}

/// An update that would make the document larger than 8 KiB is refused, and changes nothing.
pub async fn a_full_shadow_refuses(shadows: &ShadowFixture<'_>) {
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

/// Stamps a test for each case: `shadow_port_cases!(fresh)`, where `fresh().await` makes a `(port, device)` of
/// things that give `&dyn ShadowPort` and `&dyn Device`. Tests run on tokio's runtime with several threads.
#[macro_export]
macro_rules! shadow_port_cases {
    ($fresh:path) => {
        $crate::shadow_port_cases! { $fresh:
            a_missing_shadow_is_none, creating_makes_an_empty_shadow, an_entry_that_was_put_is_there,
            another_version_is_a_conflict, a_fence_only_moves_the_version,
            removing_takes_only_what_is_named, results_are_read_in_full,
            clearing_takes_only_the_named_results, things_are_apart, a_full_shadow_refuses
        }
    };
    ($fresh:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const SHADOW_PORT_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name.
        pub async fn run_shadow_port_case(case: &str, shadows: &$crate::shadow_port::ShadowFixture<'_>) {
            match case {
                $(stringify!($case) => $crate::shadow_port::$case(shadows).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let (port, device) = $fresh().await;
            let shadows = $crate::shadow_port::ShadowFixture { port: &*port, device: &*device };
            $crate::shadow_port::$case(&shadows).await;
        })+
    };
}
