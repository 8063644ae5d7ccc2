//! Contract test cases for [`WebhookStore`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::{
    DeliveryOutcome, DeliveryRecord, DisabledReason, EndpointAnswer, EventSelection, FailureStreak,
    LockVersion, MAX_JSON_INTEGER, NoAnswer, OrganizationId, Position, ProgressSave, ReplaySince,
    Revision, SigningSecret, SigningSecrets, WaitingLock, Webhook, WebhookDescription, WebhookId,
    WebhookOwner, WebhookProgress, WebhookState, WebhookUrl, WorkerId,
};
use keywright_domain::ports::{RepoError, WebhookStore};

use crate::samples::{LEASE, NOW, lock_id};

/// Lets time pass for the leases of a store.
pub type AdvanceLeases =
    Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// An empty store under test.
#[derive(Clone)]
pub struct WebhookStoreFixture {
    /// The store.
    pub store: Arc<dyn WebhookStore>,
    /// Lets time pass for its leases.
    pub advance: AdvanceLeases,
}

const MAX: usize = 20;
const ONE: WorkerId = WorkerId(1);
const TWO: WorkerId = WorkerId(2);

/// An organization as an owner.
fn owner(name: &str) -> WebhookOwner {
    WebhookOwner::Organization(OrganizationId::new(name).expect("an organization id"))
}

/// A webhook with every optional member.
fn webhook(id: u128, owner: WebhookOwner) -> Webhook {
    let secret = |byte| SigningSecret::new(vec![byte; 32]).expect("a secret");
    Webhook {
        id: WebhookId::from_u128(id),
        owner,
        url: WebhookUrl::new("https://app.example:8443/hook?x=%20").expect("a URL"),
        events: EventSelection::new(["KeyWriteFailed", "KeyAdded"]).expect("a selection"),
        description: WebhookDescription::new("für die Türen").ok(),
        secrets: SigningSecrets {
            current: secret(2),
            previous: Some((secret(1), NOW)),
        },
        created_at: NOW,
        state: WebhookState::Enabled,
        revision: Revision(1),
        progress: WebhookProgress {
            cursor: Position(MAX_JSON_INTEGER),
            replay: None,
            failures: None,
            restarts: 7,
        },
    }
}

fn waiting(lock: u64) -> WaitingLock {
    WaitingLock {
        lock: lock_id(lock),
        next: LockVersion(3),
        through: LockVersion(MAX_JSON_INTEGER),
        attempts: 7,
        due: NOW,
    }
}

fn record(message: &str, outcome: DeliveryOutcome) -> DeliveryRecord {
    DeliveryRecord {
        number: 0,
        message: message.into(),
        event_type: "KeyAdded",
        at: NOW,
        took: Duration::from_millis(15),
        outcome,
        answer: Ok(EndpointAnswer {
            status: 200,
            retry_after: None,
            body: "ok".into(),
        }),
        next_attempt: None,
    }
}

/// A save of worker [`ONE`] that changes only the cursor.
fn save(webhook: &Webhook) -> ProgressSave {
    ProgressSave {
        webhook: webhook.id,
        worker: ONE,
        revision: webhook.revision,
        progress: WebhookProgress {
            cursor: Position(7),
            ..webhook.progress
        },
        put: Vec::new(),
        remove: Vec::new(),
        records: Vec::new(),
        disable: None,
    }
}

impl WebhookStoreFixture {
    async fn insert(&self, id: u128, owner: WebhookOwner) -> Webhook {
        let webhook = webhook(id, owner);
        let inserted = self.store.insert(&webhook, MAX).await;
        assert_eq!(inserted, Ok(true));
        webhook
    }

    async fn get(&self, id: WebhookId) -> Option<Webhook> {
        self.store.get(id).await.expect("a read")
    }

    async fn claim(&self, worker: WorkerId) -> Vec<WebhookId> {
        let claimed = self.store.claim(worker, LEASE).await.expect("a claim");
        let mut ids: Vec<WebhookId> = claimed.iter().map(|webhook| webhook.id).collect();
        ids.sort_unstable();
        ids
    }

    async fn records(
        &self,
        id: WebhookId,
        outcome: Option<DeliveryOutcome>,
    ) -> Vec<DeliveryRecord> {
        let records = self.store.records(id, outcome, None, 1000).await;
        records.expect("a read")
    }
}

/// A webhook is read back with all its members.
pub async fn inserted_webhook_is_read_back(fixture: &WebhookStoreFixture) {
    for (id, owner) in [
        (1, owner("acme")),
        (u128::MAX, WebhookOwner::EveryOrganization),
    ] {
        let inserted = fixture.insert(id, owner).await;
        assert_eq!(fixture.get(inserted.id).await, Some(inserted));
    }
    assert_eq!(fixture.get(WebhookId::from_u128(404)).await, None);
    let plain = Webhook {
        events: EventSelection::All,
        description: None,
        secrets: SigningSecrets::of(SigningSecret::new(vec![9; 64]).expect("a secret")),
        ..webhook(3, owner("acme"))
    };
    assert_eq!(fixture.store.insert(&plain, MAX).await, Ok(true));
    assert_eq!(fixture.get(plain.id).await, Some(plain));
}

/// An owner has at most as many webhooks as the insert allows. Those of others do not count.
pub async fn webhooks_of_an_owner_are_limited(fixture: &WebhookStoreFixture) {
    fixture.insert(1, owner("acme")).await;
    fixture.insert(2, WebhookOwner::EveryOrganization).await;
    let second = webhook(3, owner("acme"));
    assert_eq!(fixture.store.insert(&second, 2).await, Ok(true));
    let third = webhook(4, owner("acme"));
    assert_eq!(fixture.store.insert(&third, 2).await, Ok(false));
    assert_eq!(fixture.get(third.id).await, None);
    assert_eq!(fixture.store.remove(second.id).await, Ok(true));
    assert_eq!(
        fixture.store.insert(&third, 2).await,
        Ok(true),
        "there is room again"
    );
}

/// A list has the webhooks of its owner, in the order of their ids.
pub async fn webhooks_are_listed_by_owner(fixture: &WebhookStoreFixture) {
    for (id, owner) in [
        (3, owner("acme")),
        (1, owner("acme")),
        (2, owner("other")),
        (4, WebhookOwner::EveryOrganization),
    ] {
        fixture.insert(id, owner).await;
    }
    let list = async |owner: Option<&WebhookOwner>| -> Vec<u128> {
        let found = fixture.store.list(owner).await.expect("a list");
        found.iter().map(|webhook| webhook.id.as_u128()).collect()
    };
    assert_eq!(list(Some(&owner("acme"))).await, [1, 3]);
    assert_eq!(list(Some(&WebhookOwner::EveryOrganization)).await, [4]);
    assert_eq!(list(Some(&owner("nobody"))).await, [0_u128; 0]);
    assert_eq!(list(None).await, [1, 2, 3, 4]);
}

/// An update stores all members but the progress, and the next revision.
pub async fn update_increments_the_revision(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    for (revision, reason) in (1..).zip(DisabledReason::ALL) {
        let changed = Webhook {
            url: WebhookUrl::new("https://other.example/").expect("a URL"),
            events: EventSelection::All,
            description: None,
            secrets: SigningSecrets::of(SigningSecret::new(vec![7; 24]).expect("a secret")),
            state: WebhookState::Disabled { at: NOW, reason },
            revision: Revision(revision),
            progress: WebhookProgress::default(),
            ..inserted.clone()
        };
        assert_eq!(fixture.store.update(&changed, None).await, Ok(()));
        let stored = Webhook {
            revision: Revision(revision + 1),
            progress: inserted.progress,
            ..changed
        };
        assert_eq!(fixture.get(inserted.id).await, Some(stored));
    }
}

/// An update at another revision is stale and changes nothing.
pub async fn stale_update_changes_nothing(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    let stale = Webhook {
        revision: Revision(2),
        events: EventSelection::All,
        ..inserted.clone()
    };
    let progress = Some(WebhookProgress::default());
    assert_eq!(
        fixture.store.update(&stale, progress).await,
        Err(RepoError::Stale)
    );
    let unknown = webhook(404, owner("acme"));
    assert_eq!(
        fixture.store.update(&unknown, None).await,
        Err(RepoError::Stale)
    );
    assert_eq!(fixture.get(inserted.id).await, Some(inserted));
}

/// An update with a progress stores it, and makes all waiting locks due.
pub async fn update_with_progress_makes_waiting_locks_due(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    fixture.claim(ONE).await;
    let saved = ProgressSave {
        put: vec![waiting(1), waiting(2)],
        ..save(&inserted)
    };
    fixture.store.save_progress(saved).await.expect("saved");
    let progress = WebhookProgress {
        cursor: Position(3),
        replay: Some(ReplaySince {
            since: NOW,
            until: Position(9),
        }),
        failures: None,
        restarts: 7,
    };
    let updated = fixture.store.update(&inserted, Some(progress)).await;
    assert_eq!(updated, Ok(()));
    let stored = fixture.get(inserted.id).await.expect("a webhook");
    assert_eq!(stored.progress, progress);
    let waits = fixture.store.waiting(inserted.id).await.expect("a read");
    assert_eq!(waits.len(), 2);
    assert!(waits.iter().all(|waiting| waiting.due < NOW), "{waits:?}");
}

/// A removed webhook is gone, with its waiting locks and records.
pub async fn removed_webhook_is_gone(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    let other = fixture.insert(2, owner("acme")).await;
    fixture.claim(ONE).await;
    let saved = ProgressSave {
        put: vec![waiting(1)],
        records: vec![record("1-1", DeliveryOutcome::Delivered)],
        ..save(&inserted)
    };
    fixture.store.save_progress(saved).await.expect("saved");
    assert_eq!(fixture.store.remove(inserted.id).await, Ok(true));
    assert_eq!(fixture.store.remove(inserted.id).await, Ok(false));
    assert_eq!(fixture.get(inserted.id).await, None);
    assert_eq!(fixture.store.waiting(inserted.id).await, Ok(Vec::new()));
    assert_eq!(fixture.records(inserted.id, None).await, []);
    assert_eq!(fixture.claim(ONE).await, [other.id]);
}

/// A claim returns all enabled webhooks.
pub async fn claim_takes_enabled_webhooks(fixture: &WebhookStoreFixture) {
    let first = fixture.insert(1, owner("acme")).await;
    let second = fixture.insert(2, owner("other")).await;
    assert_eq!(fixture.claim(ONE).await, [first.id, second.id]);
    let claimed = fixture.store.claim(ONE, LEASE).await.expect("a claim");
    assert!(
        claimed.contains(&first),
        "with all its members: {claimed:?}"
    );
    let disabled = Webhook {
        state: WebhookState::Disabled {
            at: NOW,
            reason: DisabledReason::Requested,
        },
        ..first
    };
    fixture
        .store
        .update(&disabled, None)
        .await
        .expect("updated");
    assert_eq!(fixture.claim(ONE).await, [second.id]);
}

/// A webhook that a worker holds is claimed by another one only after the lease. Each claim renews the lease.
pub async fn held_webhook_is_not_claimed_by_another_worker(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    assert_eq!(fixture.claim(ONE).await, [inserted.id]);
    assert_eq!(fixture.claim(TWO).await, []);
    (fixture.advance)(LEASE - Duration::from_secs(3)).await;
    assert_eq!(fixture.claim(ONE).await, [inserted.id], "it is renewed");
    (fixture.advance)(LEASE - Duration::from_secs(3)).await;
    assert_eq!(fixture.claim(TWO).await, []);
    (fixture.advance)(LEASE).await;
    assert_eq!(fixture.claim(TWO).await, [inserted.id]);
    assert_eq!(fixture.claim(ONE).await, []);
}

/// A worker that releases its webhooks lets others claim them at once.
pub async fn released_webhooks_are_claimed_at_once(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    assert_eq!(fixture.claim(ONE).await, [inserted.id]);
    fixture.store.release(TWO).await.expect("released");
    assert_eq!(fixture.claim(TWO).await, [], "it was not theirs");
    fixture.store.release(ONE).await.expect("released");
    assert_eq!(fixture.claim(TWO).await, [inserted.id]);
}

/// A save stores the progress, the waiting locks and the records.
pub async fn progress_is_read_back(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    fixture.claim(ONE).await;
    let progress = WebhookProgress {
        cursor: Position(7),
        replay: Some(ReplaySince {
            since: NOW,
            until: Position(9),
        }),
        failures: Some(FailureStreak {
            since: NOW,
            count: 3,
        }),
        restarts: 8,
    };
    let failed = DeliveryRecord {
        answer: Err(NoAnswer::Timeout),
        next_attempt: Some(NOW.after(LEASE)),
        ..record("1-2", DeliveryOutcome::Failed)
    };
    let body = "nothing \0 \u{1f511} \" \\".to_owned();
    let refused = DeliveryRecord {
        answer: Ok(EndpointAnswer {
            status: 404,
            retry_after: Some(Duration::from_secs(9)),
            body,
        }),
        ..record("1-3", DeliveryOutcome::Rejected)
    };
    let others = [
        NoAnswer::ForbiddenAddress("10.0.0.1 is private".into()),
        NoAnswer::Unresolved("no such name".into()),
        NoAnswer::Connection("refused".into()),
    ];
    let others = others.map(|why| DeliveryRecord {
        answer: Err(why),
        ..record("1-4", DeliveryOutcome::GivenUp)
    });
    let mut records = vec![failed, refused];
    records.extend(others);
    let saved = ProgressSave {
        progress,
        put: vec![waiting(2), waiting(1)],
        records: records.clone(),
        ..save(&inserted)
    };
    fixture.store.save_progress(saved).await.expect("saved");
    let stored = fixture.get(inserted.id).await.expect("a webhook");
    assert_eq!(
        stored,
        Webhook {
            progress,
            ..inserted.clone()
        }
    );
    let mut waits = fixture.store.waiting(inserted.id).await.expect("a read");
    waits.sort_unstable_by_key(|waiting| waiting.lock);
    assert_eq!(waits, [waiting(1), waiting(2)]);
    let mut found = fixture.records(inserted.id, None).await;
    found.reverse();
    assert!(found.is_sorted_by(|a, b| a.number < b.number));
    for record in &mut found {
        record.number = 0;
    }
    assert_eq!(found, records);

    let changed = WaitingLock {
        attempts: 8,
        ..waiting(2)
    };
    let saved = ProgressSave {
        put: vec![changed],
        remove: vec![lock_id(1), lock_id(404)],
        ..save(&inserted)
    };
    fixture.store.save_progress(saved).await.expect("saved");
    let waits = fixture.store.waiting(inserted.id).await;
    assert_eq!(waits, Ok(vec![changed]));
}

async fn assert_unchanged(fixture: &WebhookStoreFixture, webhook: &Webhook) {
    assert_eq!(fixture.get(webhook.id).await.as_ref(), Some(webhook));
    assert_eq!(fixture.store.waiting(webhook.id).await, Ok(Vec::new()));
    assert_eq!(fixture.records(webhook.id, None).await, []);
}

fn full_save(webhook: &Webhook) -> ProgressSave {
    ProgressSave {
        put: vec![waiting(1)],
        records: vec![record("1-1", DeliveryOutcome::Delivered)],
        disable: Some((DisabledReason::Gone, NOW)),
        ..save(webhook)
    }
}

/// A save of a worker that does not hold the webhook is stale and changes nothing.
pub async fn save_of_another_worker_is_stale(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    let stale = full_save(&inserted);
    let saved = fixture.store.save_progress(stale.clone()).await;
    assert_eq!(saved, Err(RepoError::Stale), "nobody holds it");
    fixture.claim(TWO).await;
    let saved = fixture.store.save_progress(stale).await;
    assert_eq!(saved, Err(RepoError::Stale));
    assert_unchanged(fixture, &inserted).await;
}

/// A save at another revision is stale and changes nothing.
pub async fn save_at_another_revision_is_stale(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    fixture.claim(ONE).await;
    let stale = ProgressSave {
        revision: Revision(2),
        ..full_save(&inserted)
    };
    let saved = fixture.store.save_progress(stale).await;
    assert_eq!(saved, Err(RepoError::Stale));
    assert_unchanged(fixture, &inserted).await;
}

/// A save with a reason disables the webhook.
pub async fn save_disables_a_webhook(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    fixture.claim(ONE).await;
    let reason = DisabledReason::Failing;
    let disabling = ProgressSave {
        disable: Some((reason, NOW)),
        ..save(&inserted)
    };
    fixture.store.save_progress(disabling).await.expect("saved");
    let stored = fixture.get(inserted.id).await.expect("a webhook");
    assert_eq!(stored.state, WebhookState::Disabled { at: NOW, reason });
    assert_eq!(stored.revision, Revision(2));
    assert_eq!(fixture.claim(ONE).await, []);
}

/// Records are listed from the newest to the oldest, in pages, by outcome.
pub async fn records_are_listed_newest_first(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    let other = fixture.insert(2, owner("acme")).await;
    fixture.claim(ONE).await;
    let outcomes = [DeliveryOutcome::Delivered, DeliveryOutcome::Failed];
    for n in 0..6 {
        let message = format!("1-{n}");
        for webhook in [&inserted, &other] {
            let saved = ProgressSave {
                records: vec![record(&message, outcomes[n % 2])],
                ..save(webhook)
            };
            fixture.store.save_progress(saved).await.expect("saved");
        }
    }
    let messages = |records: &[DeliveryRecord]| -> Vec<String> {
        records
            .iter()
            .map(|record| record.message.clone())
            .collect()
    };
    let page = async |outcome, before, limit| {
        let page = fixture
            .store
            .records(inserted.id, outcome, before, limit)
            .await;
        page.expect("a read")
    };
    let first = page(None, None, 4).await;
    assert_eq!(messages(&first), ["1-5", "1-4", "1-3", "1-2"]);
    let before = first.last().map(|record| record.number);
    assert_eq!(messages(&page(None, before, 4).await), ["1-1", "1-0"]);
    let failed = page(Some(DeliveryOutcome::Failed), before, 4).await;
    assert_eq!(messages(&failed), ["1-1"]);
}

/// The newest records of deliveries that succeeded are kept, and as many of others.
pub async fn records_are_bounded(fixture: &WebhookStoreFixture) {
    let inserted = fixture.insert(1, owner("acme")).await;
    fixture.claim(ONE).await;
    let kept = usize::try_from(DeliveryRecord::KEPT).expect("a small number");
    let of = |outcome: DeliveryOutcome, count: usize| {
        let records = (0..count).map(move |n| record(&format!("1-{n}"), outcome));
        records.collect::<Vec<_>>()
    };
    for records in [
        of(DeliveryOutcome::Failed, 3),
        of(DeliveryOutcome::Delivered, kept),
        of(DeliveryOutcome::Delivered, 10),
    ] {
        let saved = ProgressSave {
            records,
            ..save(&inserted)
        };
        fixture.store.save_progress(saved).await.expect("saved");
    }
    let delivered = fixture
        .records(inserted.id, Some(DeliveryOutcome::Delivered))
        .await;
    assert_eq!(delivered.len(), kept);
    assert_eq!(delivered[0].message, "1-9", "the newest");
    assert_eq!(delivered[kept - 1].message, "1-10", "the oldest");
    let failed = fixture
        .records(inserted.id, Some(DeliveryOutcome::Failed))
        .await;
    assert_eq!(failed.len(), 3);
}

/// Generates a test for each case of the contract of `WebhookStore`, on tokio's multi-threaded runtime.
///
/// In `webhook_store_cases!(fixture)`, `fixture().await` returns a
/// [`WebhookStoreFixture`](crate::webhook_store::WebhookStoreFixture) with an empty store.
#[macro_export]
macro_rules! webhook_store_cases {
    ($fixture:path) => {
        $crate::webhook_store_cases! { $fixture:
            inserted_webhook_is_read_back, webhooks_of_an_owner_are_limited, webhooks_are_listed_by_owner,
            update_increments_the_revision, stale_update_changes_nothing,
            update_with_progress_makes_waiting_locks_due, removed_webhook_is_gone, claim_takes_enabled_webhooks,
            held_webhook_is_not_claimed_by_another_worker, released_webhooks_are_claimed_at_once,
            progress_is_read_back, save_of_another_worker_is_stale, save_at_another_revision_is_stale,
            save_disables_a_webhook, records_are_listed_newest_first, records_are_bounded
        }
    };
    ($fixture:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const WEBHOOK_STORE_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name; the testkit's own tests run every case against broken stores.
        pub async fn run_webhook_store_case(case: &str, fixture: &$crate::webhook_store::WebhookStoreFixture) {
            match case {
                $(stringify!($case) => $crate::webhook_store::$case(fixture).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::webhook_store::$case(&$fixture().await).await;
        })+
    };
}
