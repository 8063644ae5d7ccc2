//! The memory shadow keeps the contract, and for each case there is a broken one that only it catches.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_adapters::shadow::InMemoryShadow;
use keywright_domain::model::*;
use keywright_domain::ports::*;
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};
use keywright_testkit::shadow_port::{Device, ShadowFixture};
use keywright_testkit::shadow_port_cases;

struct Locks(ShadowService);

#[async_trait]
impl Device for Locks {
    async fn report(&self, thing: &ThingName, document: &str) {
        let name = ShadowName::Named("keys".into());
        self.0
            .update(thing.as_str(), &name, document.as_bytes())
            .await
            .expect("a report");
    }
}

async fn fresh() -> (Arc<InMemoryShadow>, Arc<Locks>) {
    let config = ServiceConfig {
        clock: Arc::new(|| 1_780_000_000),
        limits: Limits::default(),
    };
    let service = ShadowService::in_memory(config);
    let shadow = InMemoryShadow::new(service.clone(), ShadowName::Named("keys".into()));
    (Arc::new(shadow), Arc::new(Locks(service)))
}

shadow_port_cases!(fresh);

/// The same service over a file.
mod durable {
    use super::*;

    struct InFolder {
        shadow: InMemoryShadow,
        _folder: tempfile::TempDir,
    }

    #[async_trait]
    impl ShadowPort for InFolder {
        async fn update(
            &self,
            thing: &ThingName,
            change: ShadowChange,
        ) -> Result<ShadowVersion, ShadowError> {
            self.shadow.update(thing, change).await
        }

        async fn read(
            &self,
            thing: &ThingName,
            token: ClientToken,
        ) -> Result<Option<ShadowSnapshot>, ShadowError> {
            self.shadow.read(thing, token).await
        }
    }

    async fn fresh() -> (Arc<InFolder>, Arc<Locks>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shadows.sqlite");
        let config = ServiceConfig {
            clock: Arc::new(|| 1_780_000_000),
            limits: Limits::default(),
        };
        let service = ShadowService::open(&path, config).await;
        let service = service.expect("shadows");
        let shadow = InMemoryShadow::new(service.clone(), ShadowName::Named("keys".into()));
        let in_folder = InFolder {
            shadow,
            _folder: folder,
        };
        (Arc::new(in_folder), Arc::new(Locks(service)))
    }

    shadow_port_cases!(fresh);
}

/// A shadow that breaks the contract in exactly one way: that of the case it is named after.
struct Broken {
    way: &'static str,
    inner: Arc<InMemoryShadow>,
}

#[async_trait]
impl ShadowPort for Broken {
    async fn update(
        &self,
        thing: &ThingName,
        mut change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let is = |way: &str| self.way == way;
        let fences = change.expected.is_some() && change.put.is_none() && change.remove.is_empty();
        if is("an_entry_that_was_put_is_there") {
            change.put = change.put.filter(|entry| entry.index.is_some());
        }
        if is("another_version_is_a_conflict") {
            change.expected = None;
        }
        if is("removing_takes_only_what_is_named") && !change.remove.is_empty() {
            change.remove.clear();
        }
        if is("clearing_takes_only_the_named_results") && !change.clear_results.is_empty() {
            let found = self
                .inner
                .read(thing, change.token.clone())
                .await?
                .unwrap_or_default();
            change.clear_results = found.results.into_iter().map(|r| r.write).collect();
        }
        if is("a_fence_only_moves_the_version") && fences {
            return change.expected.ok_or(ShadowError::Conflict);
        }
        let answer = self.inner.update(thing, change).await;
        match answer {
            Err(ShadowError::Refused { detail, .. }) if is("a_full_shadow_refuses") => {
                Err(ShadowError::Unknown(detail))
            }
            answer => answer,
        }
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let is = |way: &str| self.way == way;
        let mut found = self.inner.read(thing, token).await?;
        if let Some(found) = &mut found {
            if is("creating_makes_an_empty_shadow") && found.version.0 == 1 {
                found.entries.push(WriteId::from_u128(9));
            }
            if is("results_are_read_in_full") {
                for result in &mut found.results {
                    if let DeviceOutcome::Succeeded { slot } = &mut result.outcome {
                        *slot = ReportedSlot::Missing;
                    }
                }
            }
            return Ok(Some(found.clone()));
        }
        let first_door = thing.as_str() == "thing-1";
        let missing =
            is("a_missing_shadow_is_none") && first_door || is("things_are_apart") && !first_door;
        Ok(missing.then(ShadowSnapshot::default))
    }
}

#[tokio::test]
async fn each_broken_shadow_fails_its_own_case_and_no_other() {
    for way in SHADOW_PORT_CASES {
        for case in SHADOW_PORT_CASES {
            let (inner, device) = fresh().await;
            let port = Broken { way, inner };
            let outcome = tokio::spawn(async move {
                run_shadow_port_case(
                    case,
                    &ShadowFixture {
                        port: &port,
                        device: &*device,
                    },
                )
                .await;
            });
            assert_eq!(
                outcome.await.is_err(),
                way == case,
                "the shadow broken in {way}, case {case}"
            );
        }
    }
}
