//! The feed and the lists of locks and writes show a principal exactly the locks that it may access now.

use std::sync::Arc;

use keywright_adapters::lock_repo::InMemoryLockRepo;
use keywright_domain::model::*;
use keywright_domain::policy::{AccessPolicy, OwnerAccess};
use keywright_domain::ports::{LockHistory, LockRepo};
use keywright_domain::{FeedFilter, KeyWrites, LockFilter, Ports, Settings, WriteFilter};
use keywright_testkit::samples::{created, lock_id, prepared, slot};
use proptest::prelude::*;

use crate::harness::Harness;

/// A change of who may access a lock.
#[derive(Clone, Debug)]
enum Change {
    Create,
    Owner(u8),
    Organization(u8),
    Key(u8),
}

fn user(n: u8) -> UserId {
    UserId::new(&format!("user-{n}")).expect("a user id")
}

fn organization(n: u8) -> OrganizationId {
    OrganizationId::new(&format!("organization-{n}")).expect("an organization id")
}

fn changes() -> impl Strategy<Value = Vec<(u64, Change)>> {
    let change = prop_oneof![
        Just(Change::Create),
        (0..3_u8).prop_map(Change::Owner),
        (0..3_u8).prop_map(Change::Organization),
        (0..3_u8).prop_map(Change::Key),
    ];
    prop::collection::vec((1..6_u64, change), 0..40)
}

fn principals() -> Vec<Principal> {
    let mut identities: Vec<Identity> = (0..3).map(|n| Identity::User(user(n))).collect();
    identities.extend((0..3).map(|n| Identity::Organization(organization(n))));
    identities.push(Identity::EveryOrganization);
    let mut principals: Vec<Principal> = identities.into_iter().map(Principal::of).collect();
    principals.push(Principal::of_both(
        Identity::User(user(0)),
        Identity::Organization(organization(1)),
    ));
    principals
}

/// The world after these changes: a store, and its events in the order in which they were recorded.
async fn world(changes: Vec<(u64, Change)>) -> (Arc<InMemoryLockRepo>, Vec<RecordedEvent>) {
    let timer = keywright_testkit::ManualTimer::default();
    let store = Arc::new(InMemoryLockRepo::new(Arc::new(timer)));
    let mut log: Vec<RecordedEvent> = Vec::new();
    for (lock, change) in changes {
        let lock = lock_id(lock);
        let last = log.iter().rfind(|event| event.lock == lock);
        let event = match (change, last) {
            (_, None) => created(lock),
            (Change::Create, Some(_)) => continue,
            (change, Some(last)) => RecordedEvent {
                version: last.version.next(),
                event: match change {
                    Change::Organization(n) => LockEvent::OrganizationSet {
                        organization: organization(n),
                    },
                    Change::Key(n) => LockEvent::KeyAdded(HeldKey {
                        key: KeyUuid::new("key").expect("a key uuid"),
                        index: None,
                        user: Some(user(n)),
                    }),
                    Change::Owner(n) => LockEvent::OwnerSet { user: user(n) },
                    Change::Create => unreachable!("handled above"),
                },
                ..created(lock)
            },
        };
        store.import(vec![event.clone()]).await.expect("imported");
        log.push(event);
    }
    (store, log)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn shows_exactly_what_may_be_accessed(
        changes in changes(), limit in 1..5_usize, lock in prop::option::of(1..7_u64), by_type: bool,
        of_organization in prop::option::of(0..3_u8), with_key: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let (store, log) = world(changes).await;
            let ports = Ports { locks: store.clone(), history: store.clone(), ..Harness::new().await.ports };
            let writes = KeyWrites::new(ports, Settings::default()).expect("valid settings");
            let mut filter = FeedFilter::default();
            filter.lock = lock.map(lock_id);
            filter.event_type = by_type.then(|| "OwnerSet".to_owned());
            let mut lock_filter = LockFilter::default();
            lock_filter.organization = of_organization.map(organization);
            lock_filter.key = with_key.then(|| KeyUuid::new("key").expect("a key uuid"));
            let mut write_filter = WriteFilter::default();
            write_filter.organization = of_organization.map(organization);
            let is_of_organization = |lock: &Lock| match of_organization {
                None => true,
                Some(n) => lock.organization == Some(organization(n)),
            };
            let locks = store.locks(None, 100).await.expect("locks");
            for lock in &locks {
                let known = store.load(lock.id).await.expect("loaded").expect("a lock");
                let (_, save) = prepared(&known, u128::from(100 + lock.id.get()), slot("key", None));
                store.save(save).await.expect("prepared");
            }
            for principal in principals() {
                let accessible = |event: &&RecordedEvent| {
                    let lock = locks.iter().find(|lock| lock.id == event.lock).expect("a lock");
                    OwnerAccess.may_access(&principal, lock) && filter.matches(event)
                };
                let expected: Vec<&RecordedEvent> = log.iter().filter(accessible).collect();
                let (mut after, mut shown) = (Position::START, Vec::new());
                loop {
                    let page = writes.read_feed(&principal, &filter, after, limit).await.expect("a page");
                    assert!(page.events.len() <= limit);
                    shown.extend(page.events.into_iter().map(|event| event.logged.event));
                    after = page.next;
                    if page.is_end {
                        break;
                    }
                }
                assert_eq!(shown.iter().collect::<Vec<_>>(), expected, "{principal}");
                assert_eq!(after, writes.feed_end().await.expect("the end"));
                let mut listed = Vec::new();
                let mut after = None;
                loop {
                    let page = writes.list_locks(&principal, &lock_filter, after, limit).await.expect("a page");
                    assert!(page.items.len() <= limit);
                    listed.extend(page.items);
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                let accessible = locks.iter().filter(|lock| {
                    OwnerAccess.may_access(&principal, lock) && is_of_organization(lock)
                });
                let accessible: Vec<&Lock> = accessible.collect();
                let holds = |lock: &Lock| { lock.keys.iter() }.any(|key| key.held.key.as_str() == "key");
                let expected_locks = accessible.iter().copied().filter(|lock| !with_key || holds(lock));
                assert_eq!(listed.iter().collect::<Vec<_>>(), expected_locks.collect::<Vec<_>>(), "{principal}");
                let (mut writes_listed, mut below) = (Vec::new(), None);
                loop {
                    let page = writes.list_writes(&principal, &write_filter, below, limit).await.expect("a page");
                    assert!(page.items.len() <= limit);
                    writes_listed.extend(page.items.iter().map(|write| write.lock));
                    below = page.next;
                    if below.is_none() {
                        break;
                    }
                }
                let newest_first: Vec<LockId> = accessible.iter().rev().map(|lock| lock.id).collect();
                assert_eq!(writes_listed, newest_first, "{principal}");
                // The events that streams share are shown to the same readers.
                let followed = writes.follow_feed(Position::START, 1000).await.expect("events");
                let shown = followed.events.iter().filter(|shared| {
                    writes.shows(&shared.logged.event, &shared.lock, &principal, &filter)
                });
                let followed: Vec<_> = shown.map(|event| &event.logged.event).collect();
                assert_eq!(followed, expected, "{principal}");
            }
        });
    }
}
