//! Decisions about webhooks: URLs, addresses, access, retries, and the order of deliveries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keywright_domain::model::*;
use keywright_domain::policy::{
    AddressRules, DeliveryQueue, NextDelivery, UnusableUrl, Verdict, WebhookLimits, judge,
    may_manage, owner_of,
};
use keywright_testkit::samples::{NOW, created, lock_id};
use proptest::prelude::*;

fn url(text: &str) -> WebhookUrl {
    WebhookUrl::new(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn urls_are_read_with_host_port_and_target() {
    for (text, host, port, target, authority) in [
        (
            "https://App.example",
            "app.example",
            443,
            "/",
            "app.example",
        ),
        (
            "https://app.example:8443/a/b?c=d",
            "app.example",
            8443,
            "/a/b?c=d",
            "app.example:8443",
        ),
        (
            "http://127.0.0.1:3000?x",
            "127.0.0.1",
            3000,
            "/?x",
            "127.0.0.1:3000",
        ),
        (
            "HTTPS://[2001:DB8::1]/",
            "[2001:db8::1]",
            443,
            "/",
            "[2001:db8::1]",
        ),
    ] {
        let url = url(text);
        let shown = (
            url.host().to_string(),
            url.port(),
            url.target(),
            url.authority(),
        );
        let expected = (
            host.to_owned(),
            port,
            target.to_owned(),
            authority.to_owned(),
        );
        assert_eq!(shown, expected);
        assert_eq!(url.as_str(), text);
    }
}

#[test]
fn urls_with_credentials_or_other_forms_are_refused() {
    let long = format!("https://app.example/{}", "x".repeat(2048));
    for text in [
        "",
        "app.example",
        "https://",
        "https:///path",
        "ftp://app.example",
        "https://me@app.example",
        "https://me:secret@app.example/",
        "https://app.example/#x",
        "https://app.example:0/",
        "https://app.example:99999/",
        "https://app.example:/",
        "https://app.example:+1/",
        "https://a b/",
        "https://app..example/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://[::1/",
        "https://[::1]x/",
        "https://app.example\\@evil.example/",
        "https://ä.example/",
        &long,
    ] {
        let refused = WebhookUrl::new(text).expect_err(text);
        assert!(!refused.to_string().contains("secret"));
    }
    let shown = format!("{:?}", url("https://app.example/hook?token=secret"));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn networks_have_the_addresses_that_share_their_prefix() {
    let network: Network = "10.1.0.0/16".parse().expect("a network");
    let has = |text: &str| network.contains(text.parse().expect("an address"));
    assert!(has("10.1.0.0") && has("10.1.255.255"));
    assert!(!has("10.2.0.0") && !has("::ffff:10.1.0.0"));
    let all: Network = "::/0".parse().expect("a network");
    assert!(all.contains("ff02::1".parse().expect("an address")));
    for wrong in [
        "10.1.0.1/16",
        "10.0.0.0/33",
        "10.0.0.0/",
        "x/8",
        "fd00::1/64",
        "::/129",
    ] {
        assert!(wrong.parse::<Network>().is_err(), "{wrong}");
    }
    let one: Network = "192.0.2.7".parse().expect("an address");
    assert_eq!(one.to_string(), "192.0.2.7/32");
}

#[test]
fn addresses_that_are_not_public_are_refused() {
    let rules = AddressRules::default();
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "::2",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:a00:1::",
        "2002:7f00:1::1",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "100::1",
        "::ffff:0:127.0.0.1",
        "5f00::1",
    ] {
        let address = address.parse().expect(address);
        assert!(rules.check(address).is_err(), "{address}");
    }
    for address in [
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "169.253.0.1",
        "2606:4700::1111",
        "2a00::1",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
        "2002:101:101::1",
    ] {
        let address = address.parse().expect(address);
        assert_eq!(rules.check(address), Ok(()), "{address}");
    }
}

#[test]
fn networks_can_be_allowed() {
    let rules = AddressRules {
        allowed: vec!["10.1.0.0/16".parse().expect("a network")],
        ..AddressRules::default()
    };
    for (address, allowed) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("10.2.0.1", false),
    ] {
        let address = address.parse().expect(address);
        assert_eq!(rules.check(address).is_ok(), allowed, "{address}");
    }
    assert!(rules.check_url(&url("https://10.1.2.3/")).is_ok());
    assert_eq!(
        rules.check_url(&url("http://10.1.2.3/")),
        Err(UnusableUrl::NotHttps)
    );
}

#[test]
fn plain_http_is_only_for_loopback_where_it_is_allowed() {
    let sandbox = AddressRules {
        allowed: AddressRules::loopback().to_vec(),
        allows_http_on_loopback: true,
    };
    for text in [
        "http://127.0.0.1:3000/",
        "http://localhost/",
        "http://[::1]/",
        "https://localhost/",
    ] {
        assert_eq!(sandbox.check_url(&url(text)), Ok(()), "{text}");
    }
    for text in [
        "http://app.example/",
        "http://localhost.example/",
        "http://1.1.1.1/",
    ] {
        assert_eq!(
            sandbox.check_url(&url(text)),
            Err(UnusableUrl::NotHttps),
            "{text}"
        );
    }
    let production = AddressRules::default();
    assert_eq!(
        production.check_url(&url("http://localhost/")),
        Err(UnusableUrl::NotHttps)
    );
    let refused = production.check_url(&url("https://127.0.0.1/"));
    assert!(
        matches!(refused, Err(UnusableUrl::Forbidden(_))),
        "{refused:?}"
    );
}

fn organization(name: &str) -> Identity {
    Identity::Organization(OrganizationId::new(name).expect("an organization id"))
}

#[test]
fn webhooks_are_for_organizations() {
    let acme = WebhookOwner::Organization(OrganizationId::new("acme").expect("an id"));
    let every = WebhookOwner::EveryOrganization;
    let user = Identity::User(UserId::new("alice").expect("an id"));
    for (principal, owner, manages_acme, manages_every) in [
        (Principal::of(user.clone()), None, false, false),
        (
            Principal::of(organization("acme")),
            Some(&acme),
            true,
            false,
        ),
        (
            Principal::of_both(user.clone(), organization("acme")),
            Some(&acme),
            true,
            false,
        ),
        (
            Principal::of(Identity::EveryOrganization),
            Some(&every),
            true,
            true,
        ),
        (
            Principal::of_both(user, Identity::EveryOrganization),
            Some(&every),
            true,
            true,
        ),
        (
            Principal::of_both(Identity::EveryOrganization, organization("acme")),
            Some(&acme),
            true,
            true,
        ),
    ] {
        assert_eq!(owner_of(&principal).as_ref(), owner, "{principal}");
        assert_eq!(may_manage(&principal, &acme), manages_acme, "{principal}");
        assert_eq!(may_manage(&principal, &every), manages_every, "{principal}");
    }
    let other = Principal::of(organization("other"));
    assert!(!may_manage(&other, &acme));
}

#[test]
fn selections_have_known_types() {
    let selection = EventSelection::new(["KeyWriteFailed", "KeyWriteConfirmed"]).expect("known");
    assert_eq!(selection.names(), ["KeyWriteConfirmed", "KeyWriteFailed"]);
    assert!(selection.has("KeyWriteFailed") && !selection.has("LockCreated"));
    let all = EventSelection::new(["*", "KeyAdded"]).expect("all");
    assert_eq!((all.names(), all.has("LockCreated")), (vec!["*"], true));
    assert!(EventSelection::new([]).is_err() && EventSelection::new(["Exploded"]).is_err());
}

#[test]
fn old_and_new_secret_sign_until_the_old_one_ends() {
    let secret = |byte| SigningSecret::new(vec![byte; 32]).expect("a secret");
    let secrets = SigningSecrets {
        current: secret(2),
        previous: Some((secret(1), NOW.after(Duration::from_secs(60)))),
    };
    let valid = |now| secrets.valid_at(now).cloned().collect::<Vec<_>>();
    assert_eq!(valid(NOW), [secret(2), secret(1)]);
    assert_eq!(valid(NOW.after(Duration::from_secs(60))), [secret(2)]);
    assert!(SigningSecret::new(vec![0; 23]).is_err() && SigningSecret::new(vec![0; 65]).is_err());
    assert_eq!(format!("{:?}", secret(1)), "SigningSecret(…)");
}

fn answer(status: u16, retry_after: Option<u64>) -> Result<EndpointAnswer, NoAnswer> {
    Ok(EndpointAnswer {
        status,
        retry_after: retry_after.map(Duration::from_secs),
        body: String::new(),
    })
}

const FAILED: Verdict = Verdict::Failed { retry_after: None };

#[test]
fn answers_are_final_or_retried() {
    for (status, verdict) in [
        (200, Verdict::Delivered),
        (204, Verdict::Delivered),
        (299, Verdict::Delivered),
        (301, FAILED),
        (307, FAILED),
        (400, Verdict::Rejected),
        (401, Verdict::Rejected),
        (404, Verdict::Rejected),
        (408, FAILED),
        (409, Verdict::Rejected),
        (410, Verdict::Gone),
        (425, FAILED),
        (429, FAILED),
        (500, FAILED),
        (503, FAILED),
        (599, FAILED),
        (199, FAILED),
    ] {
        assert_eq!(judge(&answer(status, None), true), verdict, "{status}");
    }
    assert_eq!(judge(&Err(NoAnswer::Timeout), true), FAILED);
    let retry_after = Some(Duration::from_secs(7));
    assert_eq!(
        judge(&answer(429, Some(7)), true),
        Verdict::Failed { retry_after }
    );
}

fn event(lock: u64, version: u64) -> WebhookEvent {
    WebhookEvent {
        recorded: RecordedEvent {
            version: LockVersion(version),
            ..created(lock_id(lock))
        },
        organization: None,
    }
}

fn limits() -> WebhookLimits {
    WebhookLimits::default()
}

fn queue() -> DeliveryQueue {
    DeliveryQueue::new(limits(), WebhookProgress::default(), Vec::new(), NOW)
}

/// Starts the next delivery and ends it. Returns the time of the next attempt.
fn deliver(queue: &mut DeliveryQueue, verdict: Verdict, now: Timestamp) -> Option<Timestamp> {
    let next = queue.start(now).expect("a delivery");
    queue.found(&next, Some(next.version));
    let finished = queue.finish(next.lock, next.version, verdict, now, u32::MAX / 2);
    finished.next_attempt
}

#[test]
fn one_event_is_retried_by_the_schedule_while_others_succeed() {
    let mut queue = queue();
    queue.add(Position(1), event(1, 1));
    let (mut now, mut pauses) = (NOW, Vec::new());
    let mut position = 1;
    while let Some(next) = deliver(&mut queue, FAILED, now) {
        pauses.push(next.since(now).as_secs());
        now = next;
        // Another lock shows that the endpoint works.
        position += 1;
        queue.add(Position(position), event(2, position));
        let other = queue.next_due().is_some_and(|due| due > now);
        assert!(!other, "it is due");
        let started = [(); 2].map(|()| queue.start(now).expect("both locks start"));
        let [first, second] = match started {
            [first, second] if first.lock == lock_id(1) => [first, second],
            [second, first] => [first, second],
        };
        assert_eq!((first.lock, second.lock), (lock_id(1), lock_id(2)));
        queue.finish(second.lock, second.version, Verdict::Delivered, now, 0);
        queue.postpone(&first, now);
    }
    assert_eq!(pauses.len(), 8, "{pauses:?}");
    for (pause, expected) in pauses
        .iter()
        .zip([5, 30, 300, 1800, 7200, 18_000, 36_000, 36_000])
    {
        assert!(pause.abs_diff(expected) <= expected / 10, "{pauses:?}");
    }
    assert_eq!(
        queue.progress().cursor,
        Position(position),
        "it was given up"
    );
}

/// Ten locks whose events the receiver never accepts come first.
#[test]
fn locks_whose_deliveries_always_fail_do_not_keep_others_from_being_delivered() {
    for parallel in [1, 2, 8] {
        let mut limits = limits();
        limits.parallel = parallel;
        let mut queue = DeliveryQueue::new(limits, WebhookProgress::default(), Vec::new(), NOW);
        let mut feed = (1..=10).map(|lock| (lock, 1)).collect::<Vec<_>>();
        feed.extend((0..200).map(|n| (100 + n % 50, n / 50 + 1)));
        let mut feed = feed.into_iter().zip(1..).peekable();
        let (mut now, mut delivered) = (NOW, 0);
        while delivered < 200 {
            assert!(
                now.since(NOW) < Duration::from_secs(3600),
                "{parallel}: {delivered}"
            );
            while queue.read_after().is_some()
                && let Some(((lock, version), position)) = feed.next()
            {
                queue.add(Position(position), event(lock, version));
            }
            let started: Vec<NextDelivery> = std::iter::from_fn(|| queue.start(now)).collect();
            for next in &started {
                if next.event.is_none() {
                    queue.found(next, Some(next.version));
                }
                let verdict = match next.lock.get() {
                    1..=10 => FAILED,
                    _ => Verdict::Delivered,
                };
                delivered += u32::from(verdict == Verdict::Delivered);
                let finished = queue.finish(next.lock, next.version, verdict, now, 0);
                assert_eq!(finished.disable, None);
            }
            if started.is_empty() {
                now = queue
                    .next_due()
                    .expect("a lock waits")
                    .max(now.after(Duration::from_millis(1)));
            }
        }
    }
}

#[test]
fn two_failures_days_apart_do_not_disable_a_webhook() {
    let mut queue = queue();
    queue.add(Position(1), event(1, 1));
    queue.add(Position(2), event(2, 1));
    let first = queue.start(NOW).expect("a delivery");
    queue.finish(first.lock, first.version, Verdict::Rejected, NOW, 0);
    let later = NOW.after(Duration::from_secs(6 * 24 * 3600));
    let second = queue.start(later).expect("a delivery");
    let finished = queue.finish(second.lock, second.version, Verdict::Rejected, later, 0);
    assert_eq!(finished.disable, None);
}

#[test]
fn an_event_that_is_no_longer_wanted_is_passed() {
    let mut queue = queue();
    queue.add(Position(1), event(1, 1));
    queue.add(Position(2), event(1, 2));
    let first = queue.start(NOW).expect("a delivery");
    queue.skip(&first, NOW);
    assert_eq!(
        (queue.progress().cursor, queue.in_progress()),
        (Position(1), 0)
    );
    let second = queue.start(NOW).expect("the next one");
    assert_eq!(second.version, LockVersion(2));
}

#[test]
fn a_410_of_an_earlier_url_is_a_failure() {
    assert_eq!(judge(&answer(410, None), false), FAILED);
}

#[test]
fn a_cursor_ends_with_the_feed() {
    let progress = WebhookProgress {
        cursor: Position(9),
        ..WebhookProgress::default()
    };
    assert_eq!(progress.within(Position(5)).cursor, Position(5));
    assert_eq!(progress.within(Position(12)), progress);
}

#[test]
fn jitter_stays_within_a_tenth() {
    for random in [0, 1, u32::MAX / 3, u32::MAX] {
        let mut queue = queue();
        queue.add(Position(1), event(1, 1));
        let next = queue.start(NOW).expect("a delivery");
        let failed = queue.finish(next.lock, next.version, FAILED, NOW, random);
        let pause = failed.next_attempt.expect("a retry").since(NOW);
        assert!((Duration::from_millis(4500)..=Duration::from_millis(5500)).contains(&pause));
    }
}

#[test]
fn retry_after_is_honoured_within_bounds() {
    for (asked, expected) in [(1, 5), (60, 60), (1_000_000, 36_000)] {
        let mut queue = queue();
        queue.add(Position(1), event(1, 1));
        let retry_after = Some(Duration::from_secs(asked));
        let next = deliver(&mut queue, Verdict::Failed { retry_after }, NOW);
        assert_eq!(next.expect("a retry").since(NOW).as_secs(), expected);
    }
}

#[test]
fn an_endpoint_that_is_gone_is_disabled_and_loses_nothing() {
    let mut queue = queue();
    queue.add(Position(1), event(1, 1));
    let next = queue.start(NOW).expect("a delivery");
    let finished = queue.finish(next.lock, next.version, Verdict::Gone, NOW, 0);
    assert_eq!(finished.disable, Some(DisabledReason::Gone));
    let changes = queue.changes().expect("changes");
    assert_eq!(changes.put[0].next, LockVersion(1));
    assert_eq!(changes.progress.cursor, Position(1));
}

#[test]
fn while_all_deliveries_fail_the_cursor_almost_stops_and_one_at_a_time_is_tried() {
    let mut queue = queue();
    for lock in 1..=100 {
        queue.add(Position(lock), event(lock, 1));
    }
    let mut now = NOW;
    let mut in_parallel = Vec::new();
    while let Some(next) = queue.start(now) {
        in_parallel.push(next);
    }
    assert_eq!(in_parallel.len(), 8);
    for next in in_parallel {
        queue.finish(next.lock, next.version, FAILED, now, 0);
    }
    assert!(queue.is_failing());
    assert_eq!(queue.read_after(), None, "the cursor stops");
    // Two days: no attempt counts, so nothing is given up.
    let mut probes = 0;
    for _ in 0..2 * 24 * 60 {
        now = now.after(Duration::from_secs(60));
        if let Some(next) = queue.start(now) {
            assert_eq!(queue.start(now), None, "one at a time");
            probes += 1;
            // Each second one is of a lock that does not wait yet, and the cursor passes it.
            assert!(queue.progress().cursor.0 <= 8 + probes / 2, "{probes}");
            let failed = queue.finish(next.lock, next.version, FAILED, now, 0);
            assert_eq!(failed.outcome, DeliveryOutcome::Failed);
            let pause = failed.next_attempt.expect("a retry").since(now);
            assert!(pause <= Duration::from_secs(300), "{pause:?}");
            assert_eq!(failed.disable, None);
        }
    }
    let since = queue.progress().failures.expect("failures").since;
    assert_eq!(since, NOW);
    // It is back: all locks go on at once.
    let next = queue
        .start(now.after(Duration::from_secs(300)))
        .expect("a probe");
    queue.finish(next.lock, next.version, Verdict::Delivered, now, 0);
    let mut delivered = 1;
    while let Some(next) = queue.start(now) {
        queue.finish(next.lock, next.version, Verdict::Delivered, now, 0);
        delivered += 1;
    }
    assert_eq!(delivered, 100);
    assert_eq!(
        queue.progress(),
        WebhookProgress {
            cursor: Position(100),
            ..<_>::default()
        }
    );
    assert_eq!(queue.read_after(), Some(Position(100)));
}

#[test]
fn five_days_of_failures_disable_it() {
    let mut queue = queue();
    queue.add(Position(1), event(1, 1));
    let mut now = deliver(&mut queue, FAILED, NOW).expect("a retry");
    loop {
        let next = queue.start(now).expect("it is due");
        let failed = queue.finish(next.lock, next.version, FAILED, now, 0);
        if let Some(reason) = failed.disable {
            assert_eq!(reason, DisabledReason::Failing);
            break;
        }
        now = failed.next_attempt.expect("a retry");
    }
    let age = now.since(NOW);
    let day = Duration::from_secs(24 * 3600);
    assert!(age >= 5 * day && age < 6 * day, "{age:?}");
    assert_eq!(
        queue.changes().expect("changes").put[0].next,
        LockVersion(1),
        "nothing is lost"
    );
}

#[test]
fn a_poisoned_event_does_not_hold_up_other_locks() {
    let mut queue = queue();
    queue.add(Position(1), event(1, 1));
    let mut now = NOW;
    for _ in 0..10 {
        now = deliver(&mut queue, FAILED, now).expect("a retry");
    }
    assert!(queue.is_failing());
    queue.add(Position(2), event(2, 1));
    queue.add(Position(3), event(1, 2));
    let before = now.before(Duration::from_secs(1));
    assert_eq!(deliver(&mut queue, Verdict::Delivered, before), None);
    assert!(!queue.is_failing());
    let waits = queue.changes().expect("changes").put;
    assert_eq!(
        (waits[0].next, waits[0].through),
        (LockVersion(1), LockVersion(2))
    );
    assert_eq!(queue.progress().cursor, Position(3));
}

#[test]
fn a_replay_since_a_time_passes_over_earlier_events() {
    let progress = WebhookProgress {
        cursor: Position::START,
        replay: Some(ReplaySince {
            since: NOW.after(Duration::from_secs(1)),
            until: Position(2),
        }),
        failures: None,
        restarts: 7,
    };
    let mut queue = DeliveryQueue::new(limits(), progress, Vec::new(), NOW);
    for position in 1..=3 {
        queue.add(Position(position), event(1, position));
    }
    let next = queue.start(NOW).expect("a delivery");
    assert_eq!(
        next.version,
        LockVersion(3),
        "the time counts up to the end of the replay"
    );
    assert_eq!(queue.progress().replay, None, "it is over");
}

#[test]
fn a_replay_neither_skips_events_nor_extends_an_earlier_one() {
    let reached = WebhookProgress {
        cursor: Position(100),
        ..WebhookProgress::default()
    };
    let back = reached.replayed_after(Position(40));
    assert_eq!((back.cursor, back.restarts), (Position(40), 1));
    assert_eq!(reached.replayed_after(Position(500)).cursor, Position(100));
    let first = reached.replayed_since(NOW);
    let again = first.replayed_since(NOW.after(Duration::from_secs(1)));
    for replay in [first, again] {
        assert_eq!(replay.cursor, Position::START);
        assert_eq!(
            replay.replay.map(|replay| replay.until),
            Some(Position(100))
        );
    }
    let ended = again.replayed_after(Position(100));
    assert_eq!((ended.cursor, ended.replay), (Position(100), None));
}

#[test]
fn a_clock_that_was_set_back_does_not_delay_attempts_for_ever() {
    let waiting = WaitingLock {
        lock: lock_id(1),
        next: LockVersion(1),
        through: LockVersion(1),
        attempts: 1,
        due: NOW.after(Duration::from_secs(365 * 24 * 3600)),
    };
    let queue = DeliveryQueue::new(limits(), WebhookProgress::default(), vec![waiting], NOW);
    let due = queue.next_due().expect("it waits");
    assert!(due.since(NOW) <= Duration::from_secs(11 * 3600 + 1));
}

/// What happens to a webhook in a simulated life.
#[derive(Clone, Debug)]
enum Step {
    Record(u64),
    Read,
    Start,
    Finish(u8, Verdict),
    Save,
    Crash,
    Pass(u64),
    Replay(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Delivered),
        3 => Just(FAILED),
        1 => Just(Verdict::Rejected),
    ];
    prop_oneof![
        4 => (1..5_u64).prop_map(Step::Record),
        4 => Just(Step::Read),
        6 => Just(Step::Start),
        6 => (any::<u8>(), verdict).prop_map(|(n, verdict)| Step::Finish(n, verdict)),
        2 => Just(Step::Save),
        1 => Just(Step::Crash),
        2 => (0..40_000_u64).prop_map(Step::Pass),
        1 => any::<u64>().prop_map(Step::Replay),
    ]
}

/// A feed, what is stored of a webhook, and its queue.
struct World {
    feed: Vec<(LockId, LockVersion)>,
    stored: WebhookProgress,
    waiting: BTreeMap<LockId, WaitingLock>,
    queue: DeliveryQueue,
    in_progress: Vec<(NextDelivery, Option<LockVersion>)>,
    /// What waited when a replay began. It may be delivered before the replay has come to its lock.
    from_before: BTreeSet<(LockId, LockVersion)>,
    now: Timestamp,
    /// The events with a final outcome, by lock, since the last replay or crash that went back.
    ended: BTreeMap<LockId, BTreeSet<LockVersion>>,
    /// Where deliveries have begun since.
    begin: Position,
}

impl World {
    fn new() -> Self {
        Self {
            feed: Vec::new(),
            stored: WebhookProgress::default(),
            waiting: BTreeMap::new(),
            queue: queue(),
            in_progress: Vec::new(),
            from_before: BTreeSet::new(),
            now: NOW,
            ended: BTreeMap::new(),
            begin: Position::START,
        }
    }

    fn position(&self, lock: LockId, version: LockVersion) -> Position {
        let found = self.feed.iter().position(|entry| *entry == (lock, version));
        Position(found.expect("a recorded event") as u64 + 1)
    }

    fn record(&mut self, lock: u64) {
        let lock = lock_id(lock);
        let version = self.feed.iter().filter(|(other, _)| *other == lock).count() as u64 + 1;
        self.feed.push((lock, LockVersion(version)));
    }

    fn read(&mut self) {
        let Some(after) = self.queue.read_after() else {
            return;
        };
        let first = usize::try_from(after.0).expect("small");
        let next = self.feed.iter().enumerate().skip(first).take(3);
        for (index, (lock, version)) in next {
            let position = Position(index as u64 + 1);
            // Every fifth event is not wanted.
            match position.0.is_multiple_of(5) {
                true => self.queue.pass(position),
                false => self.queue.add(position, event(lock.get(), version.0)),
            }
        }
    }

    fn start(&mut self) {
        let Some(next) = self.queue.start(self.now) else {
            return;
        };
        let others = self.in_progress.iter();
        let others = others.filter(|(other, _)| other.lock == next.lock);
        assert_eq!(others.count(), 0, "one delivery of a lock at a time");
        // The store is read now, and the queue is told later.
        let wanted = (next.version.0..=next.through.0).map(LockVersion);
        let mut wanted =
            wanted.filter(|version| !self.position(next.lock, *version).0.is_multiple_of(5));
        let found = wanted.next();
        self.in_progress.push((next, found));
    }

    fn finish(&mut self, n: u8, verdict: Verdict) {
        if self.in_progress.is_empty() {
            return;
        }
        let index = usize::from(n) % self.in_progress.len();
        let (next, found) = self.in_progress.remove(index);
        if next.event.is_none() {
            self.queue.found(&next, found);
        }
        let Some(version) = found else { return };
        let position = self.position(next.lock, version);
        if verdict == Verdict::Delivered && position > self.begin {
            let begin = self.begin;
            let earlier = (1..version.0).map(LockVersion);
            let missing: Vec<LockVersion> = earlier
                .filter(|version| {
                    let at = self.position(next.lock, *version);
                    at > begin && !at.0.is_multiple_of(5)
                })
                .filter(|version| {
                    !self
                        .ended
                        .get(&next.lock)
                        .is_some_and(|e| e.contains(version))
                })
                .collect();
            let is_from_before = self.from_before.contains(&(next.lock, version));
            assert!(
                missing.is_empty() || is_from_before,
                "{next:?} is delivered before {missing:?}"
            );
        }
        let finished = self.queue.finish(next.lock, version, verdict, self.now, 7);
        if finished.next_attempt.is_none() {
            self.ended.entry(next.lock).or_default().insert(version);
        }
    }

    fn save(&mut self) {
        let Some(changes) = self.queue.changes() else {
            return;
        };
        self.stored = changes.progress;
        for waiting in changes.put {
            self.waiting.insert(waiting.lock, waiting);
        }
        for lock in changes.remove {
            self.waiting.remove(&lock);
        }
        // What an observer could deliver from here on after a crash: everything that is not covered by what is stored.
        for (index, (lock, version)) in self.feed.iter().enumerate() {
            let position = Position(index as u64 + 1);
            let is_wanted = !position.0.is_multiple_of(5);
            let waits = self.waiting.get(lock);
            let is_covered = waits.is_some_and(|w| (w.next..=w.through).contains(version));
            let is_ended = self
                .ended
                .get(lock)
                .is_some_and(|ended| ended.contains(version));
            let is_lost = position <= self.stored.cursor && position > self.begin;
            assert!(
                !is_lost || !is_wanted || is_covered || is_ended,
                "{lock}-{version} would be lost"
            );
        }
    }

    fn reload(&mut self) {
        self.in_progress.clear();
        let waiting = self.waiting.values().copied().collect();
        self.queue = DeliveryQueue::new(limits(), self.stored, waiting, self.now);
    }

    fn replay(&mut self, n: u64) {
        self.save();
        let cursor = Position(n % (self.feed.len() as u64 + 1));
        self.stored.cursor = cursor.min(self.stored.cursor);
        // Everything behind the cursor is delivered again.
        self.ended.clear();
        self.begin = self.stored.cursor;
        for waiting in self.waiting.values() {
            for version in waiting.next.0..=waiting.through.0 {
                self.from_before
                    .insert((waiting.lock, LockVersion(version)));
            }
        }
        self.reload();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..<_>::default() })]

    /// Whatever fails, and whenever the process crashes: events of a lock are delivered in their order, what is saved loses nothing, and
    /// when the endpoint works again, everything is delivered.
    #[test]
    fn nothing_is_lost_or_out_of_order(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        let mut has_replayed = false;
        for step in steps {
            match step {
                Step::Record(lock) => world.record(lock),
                Step::Read => world.read(),
                Step::Start => world.start(),
                Step::Finish(n, verdict) => world.finish(n, verdict),
                Step::Save => world.save(),
                Step::Crash => world.reload(),
                Step::Pass(seconds) => world.now = world.now.after(Duration::from_secs(seconds)),
                Step::Replay(n) if !has_replayed => {
                    has_replayed = true;
                    world.replay(n);
                }
                Step::Replay(_) => {}
            }
        }
        world.reload();
        let end = Position(world.feed.len() as u64);
        for _ in 0..10_000 {
            world.now = world.now.after(Duration::from_secs(60));
            world.read();
            world.start();
            world.finish(0, Verdict::Delivered);
            world.save();
            if world.stored.cursor == end && world.waiting.is_empty() {
                break;
            }
        }
        prop_assert_eq!(world.stored.cursor, end);
        prop_assert!(world.waiting.is_empty());
    }
}
