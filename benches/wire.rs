//! Reading the body of a request and writing that of an answer, compared with serde_json alone.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keywright_app::bench_access;
use keywright_benches::next_event;
use keywright_domain::WriteReceipt;
use keywright_domain::model::{Lock, LockEvent, LockVersion, WriteId};
use keywright_testkit::samples::{created, lock_id, slot};
use serde_json::Value;

const BODY: &[u8] = br#"{"keyUuid":"9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b","keyIndexNumber":2}"#;

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("the body of a request");
    group.throughput(Throughput::Bytes(BODY.len() as u64));
    group.bench_function("its key and slot", |b| {
        b.iter(|| bench_access::key_slot(BODY).expect("a slot"));
    });
    group.bench_function("serde_json alone", |b| {
        b.iter(|| serde_json::from_slice::<Value>(BODY).expect("JSON"));
    });
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let lock = Lock::fold(&[created(lock_id(1))]).expect("a lock");
    let slot = slot("9b2e8f4a-1c3d-4e5f-8a9b-0c1d2e3f4a5b", Some(2));
    let event = next_event(&lock, LockEvent::KeyWriteRequested(slot));
    let written = WriteReceipt::new(WriteId::from_u128(1), LockVersion(2), Some(event));
    let body = bench_access::success(lock.id, &written);
    let same: Value = serde_json::from_slice(&body).expect("JSON");
    let mut group = criterion.benchmark_group("the body of a 200");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("from what was written", |b| {
        b.iter(|| bench_access::success(lock.id, &written));
    });
    group.bench_function("serde_json alone", |b| {
        b.iter(|| serde_json::to_vec(&same).expect("JSON"));
    });
    group.finish();
}

criterion_group!(benches, read, write);
criterion_main!(benches);
