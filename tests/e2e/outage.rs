//! What lies between the server and the locks fails under load: the broker, the shadow service, the server itself,
//! and single messages.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::{WriteId, WriteState};
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_tests::StoreInspector;
use serde_json::json;

use crate::answer_log;
use crate::answer_log::{AnswerLog, LoadControl};
use crate::harness::{LOCK, eventually};
use crate::on_broker::OnBroker;

const LOCKS: RangeInclusive<u64> = 1001..=1020;
const CLIENTS: usize = 6;

/// How long everything may take to come to rest: the lease, five seconds, and the look after `--confirm-within`.
const REST: Duration = Duration::from_secs(60);

/// The longest that an intent may be open while the broker and the shadows come and go.
const LONGEST_OPEN: Duration = Duration::from_secs(40);

async fn under_load(
    world: &mut OnBroker,
    disorder: impl AsyncFnOnce(&mut OnBroker, &LoadControl),
) -> Vec<AnswerLog> {
    let control = Arc::<LoadControl>::default();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let target = (world.program.address, world.program.api_key.clone());
            tokio::spawn(answer_log::load(
                target,
                format!("c{client}"),
                LOCKS,
                control.clone(),
            ))
        })
        .collect();
    disorder(world, &control).await;
    control.stop();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.expect("a client"));
    }
    all
}

/// Everything balances, every 504 is one or the other, and every write that the shadow has is confirmed: by itself.
async fn at_rest(world: &OnBroker, told: &[AnswerLog]) -> StoreInspector {
    let locks: Vec<u64> = LOCKS.collect();
    let start = tokio::time::Instant::now();
    loop {
        let books = world.books().await;
        let balanced = books
            .check_at_rest(&locks)
            .await
            .and(confirmed(&books).await);
        match balanced {
            Ok(()) => {
                answer_log::check(&books, told, LOCKS, LONGEST_OPEN)
                    .await
                    .expect("nothing is lost");
                answer_log::decided(&books, told)
                    .await
                    .expect("each 504 is decided");
                return books;
            }
            Err(why) if start.elapsed() > REST => panic!("{why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

/// Nothing is open any more.
async fn confirmed(books: &StoreInspector) -> Result<(), String> {
    for id in books.writes() {
        let write = books.write(id).await;
        if matches!(
            write.state,
            WriteState::Prepared(_) | WriteState::Sent | WriteState::InProgress
        ) {
            return Err(format!("{id} is still {:?}", write.state));
        }
    }
    Ok(())
}

/// What a 502 was said of never reached a lock: the locks log each write that they do.
async fn nothing_aborted_was_done(world: &OnBroker, books: &StoreInspector) {
    let log = world.shadow_log();
    assert!(
        log.contains("virtual lock has the key"),
        "what locks do is logged"
    );
    let mut aborted = 0;
    for id in books.writes() {
        if matches!(books.write(id).await.state, WriteState::Aborted { .. }) {
            aborted += 1;
            assert!(
                !log.contains(&id.to_string()),
                "an aborted write reached its lock: {id}"
            );
        }
    }
    assert!(aborted > 0, "there were some");
}

fn count(told: &[AnswerLog]) -> HashMap<u16, usize> {
    let mut counts = HashMap::new();
    for told in told {
        *counts.entry(told.answer.status).or_default() += 1;
    }
    counts
}

const SERVE: [&str; 6] = [
    "--locks",
    "20",
    "--confirm-within",
    "2s",
    "--log-level",
    "warn",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_and_the_shadows_die_under_load_and_nothing_is_lost() {
    let sandbox = ["--locks", "20", "--behaviour", "all:latency=5ms"];
    let mut world = OnBroker::start(&sandbox, &SERVE).await;
    let told = under_load(&mut world, async |world, control| {
        control.wait_for_more(40).await;
        for _ in 0..2 {
            world.broker.kill();
            tokio::time::sleep(Duration::from_millis(1200)).await;
            world.broker.restart();
            control.wait_for_more(40).await;
        }
        // The locks are of the same process: what they had done, they answer again.
        world.restart_shadows("sandbox", &sandbox);
        control.wait_for_more(40).await;
    })
    .await;
    println!("{:?}", count(&told));
    assert!(
        count(&told)[&200] > 100,
        "there was load: {:?}",
        count(&told)
    );
    assert!(
        count(&told).contains_key(&502),
        "the outages were felt: {:?}",
        count(&told)
    );
    let books = at_rest(&world, &told).await;
    nothing_aborted_was_done(&world, &books).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_reports_get_lost_under_load_and_each_is_found_by_itself() {
    let disorder = "lose=0.05,repeat=0.2,shuffle=20,seed=11";
    let sandbox = [
        "--locks",
        "20",
        "--behaviour",
        "all:latency=5ms",
        "--disorder",
        disorder,
    ];
    let mut world = OnBroker::start(&sandbox, &SERVE).await;
    let told = under_load(&mut world, async |_, control| {
        control.wait_for_more(1000).await;
    })
    .await;
    println!("{:?}", count(&told));
    assert!(
        count(&told)[&200] > 100,
        "there was load: {:?}",
        count(&told)
    );
    at_rest(&world, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_locks_report_while_the_server_is_away_is_heard_when_it_is_back() {
    let world = OnBroker::start(&["--behaviour", "all:latency=500ms"], &[]).await;
    let answer = world.write(LOCK, "my-key", 1, 0).await;
    let id = answer.write_id();
    let world = world.restart_server(Duration::from_secs(2), &[]);
    world.until(&id, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_the_broker_forgot_is_found_on_the_shadow() {
    let mut world = OnBroker::start(&["--behaviour", "all:latency=300ms"], &[]).await;
    let answer = world.write(LOCK, "my-key", 1, 0).await;
    let id = answer.write_id();
    world.program.kill_only();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A broker without a disk forgets the session, and the report with it.
    world.broker.restart();
    let world = world.restart_server(Duration::ZERO, &[]);
    world.until(&id, "SUCCEEDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_asked_for_in_an_outage_is_sent_after_it() {
    let mut world = OnBroker::start(&["--behaviour", "all:latency=0s"], &[]).await;
    let answer = world.write(LOCK, "before", 0, 20).await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
    world.broker.kill();
    eventually("it is not ready any more", || async {
        let answer = world.program.request("GET", "/readyz").send().await;
        (answer.status == 503).then_some(())
    })
    .await;
    let mut refused = Vec::new();
    for n in 1..4 {
        let answer = world.write(LOCK, &format!("in-the-outage-{n}"), n, 0).await;
        // Unknown only where the connection was found dead with the request on it.
        assert!([502, 503, 504].contains(&answer.status), "{answer:?}");
        refused.push(answer);
    }
    world.broker.restart();
    world.ready().await;
    let answer = eventually("writes are taken again", || async {
        let answer = world.write(LOCK, "after", 5, 20).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
    for answer in refused.iter().filter(|answer| answer.status == 504) {
        let id: WriteId = answer.write_id().parse().expect("a write id");
        eventually("it is decided", || async {
            let state = world.books().await.write(id).await.state;
            matches!(state, WriteState::Aborted { .. }).then_some(())
        })
        .await;
    }
    let log = world.shadow_log();
    assert_eq!(log.matches("virtual lock has the key").count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_a_shadow_service_resolves_when_one_comes() {
    let mut world = OnBroker::start_on(Mosquitto::start(), None, "sandbox", &[], &[]).await;
    let answer = world.write(LOCK, "before", 0, 20).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    world.kill_shadows();
    let answer = world.write(LOCK, "nobody-answers", 1, 0).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    world.restart_shadows("sandbox", &[]);
    world.until(&answer.write_id(), "ABORTED").await;
}

/// A lock whose report waits at the broker for a shadow service that is down.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lock_reports_while_the_shadow_service_is_down_is_done_when_it_is_back() {
    let mut world = OnBroker::start_on(Mosquitto::start(), None, "shadow", &[], &[]).await;
    let answer = world.write(LOCK, "my-key", 1, 0).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.write_id();
    world.kill_shadows();
    let report = json!({ "state": {
        "desired": { "writeKey": { &id: null } },
        "reported": { "writeKeyResult": { &id: { "status": "SUCCEEDED", "keyIndexNumber": 1 } } },
    } });
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    world.broker.publish(&topic, &report.to_string(), false);
    world.restart_shadows("shadow", &[]);
    world.until(&id, "SUCCEEDED").await;
}
