//! The in-memory adapter fulfils the contract of `ShadowPort`, and for each case a broken adapter fails this case and no other.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_adapters::shadow::InMemoryShadow;
use keywright_domain::model::*;
use keywright_domain::ports::*;
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};
use keywright_testkit::shadow_port::{Device, ShadowFixture};
use serde_json::Value;

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

    async fn state(&self, thing: &ThingName) -> Value {
        let name = ShadowName::Named("keys".into());
        let found = self.0.get(thing.as_str(), &name, b"").await;
        found.expect("a shadow").body()["state"].clone()
    }
}

async fn fixture() -> (Arc<InMemoryShadow>, Arc<Locks>) {
    let config = ServiceConfig {
        clock: Arc::new(|| 1_780_000_000),
        limits: Limits::default(),
    };
    let service = ShadowService::in_memory(config);
    let shadow = InMemoryShadow::new(service.clone(), ShadowName::Named("keys".into()));
    (Arc::new(shadow), Arc::new(Locks(service)))
}

mod contract {
    keywright_testkit::shadow_port_cases!(super::fixture);
}

/// The same cases over the durable shadow service.
mod durable {
    use super::*;

    /// The adapter, with the folder of the service's file.
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

    async fn fixture() -> (Arc<InFolder>, Arc<Locks>) {
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

    mod contract {
        keywright_testkit::shadow_port_cases!(super::fixture);
    }
}

/// An adapter that violates the contract only in what the named case checks.
struct Broken {
    case: &'static str,
    inner: Arc<InMemoryShadow>,
}

#[async_trait]
impl ShadowPort for Broken {
    async fn update(
        &self,
        thing: &ThingName,
        mut change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let is = |case: &str| self.case == case;
        let fences = change.expected.is_some() && change.put.is_none() && change.remove.is_empty();
        // The ids of concurrent writes begin at 100.
        let is_concurrent = change
            .put
            .as_ref()
            .is_some_and(|put| put.id.as_u128() >= 100);
        if is("other_version_is_a_conflict") && !is_concurrent && change.remove.is_empty() {
            change.expected = None;
        }
        if is("exactly_one_of_concurrent_updates_is_applied") && is_concurrent {
            let found = self.inner.read(thing, change.token.clone()).await?;
            let is_expected = found.is_some_and(|found| Some(found.version) == change.expected);
            tokio::task::yield_now().await;
            if !is_expected {
                return Err(ShadowError::Conflict);
            }
            change.expected = None;
        }
        if is("put_clears_the_named_results") && change.put.is_some() {
            change.clear_results.clear();
        }
        if is("entry_has_the_members_of_the_device_contract")
            && let Some(put) = &mut change.put
        {
            put.seq = Sequence(0);
        }
        if is("remove_takes_only_the_named_entries") && change.remove == [WriteId::from_u128(1)] {
            change.remove.clear();
        }
        if is("clear_takes_only_the_named_results") && !change.clear_results.is_empty() {
            let found = self
                .inner
                .read(thing, change.token.clone())
                .await?
                .unwrap_or_default();
            change.clear_results = found.results.into_iter().map(|r| r.write).collect();
        }
        if is("fence_changes_only_the_version") && fences {
            return change.expected.ok_or(ShadowError::Conflict);
        }
        let answer = self.inner.update(thing, change).await;
        match answer {
            Err(ShadowError::Refused { detail, .. }) if is("too_large_update_is_refused") => {
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
        let is = |case: &str| self.case == case;
        let mut found = self.inner.read(thing, token).await?;
        if let Some(found) = &mut found {
            if is("put_entries_are_read_back") && found.entries == [1, 2].map(WriteId::from_u128) {
                found.entries.pop();
            }
            if is("create_makes_an_empty_shadow") && found.version.0 == 1 {
                found.entries.push(WriteId::from_u128(9));
            }
            if is("unreadable_results_do_not_fail_the_read")
                && found
                    .results
                    .iter()
                    .any(|r| r.outcome == DeviceOutcome::Unreadable)
            {
                return Err(ShadowError::Unknown("a malformed result".into()));
            }
            if is("results_are_read_with_all_members") {
                for result in &mut found.results {
                    if let DeviceOutcome::Succeeded { slot } = &mut result.outcome {
                        *slot = ReportedSlot::Missing;
                    }
                }
            }
            return Ok(Some(found.clone()));
        }
        let first_thing = thing.as_str() == "thing-1";
        let invented = match first_thing {
            true => is("missing_shadow_reads_as_none"),
            false => is("shadows_of_things_are_independent"),
        };
        Ok(invented.then(ShadowSnapshot::default))
    }
}

#[tokio::test]
async fn each_broken_adapter_fails_its_own_case_and_no_other() {
    use contract::{SHADOW_PORT_CASES, run_shadow_port_case};

    for broken in SHADOW_PORT_CASES {
        for case in SHADOW_PORT_CASES {
            let (inner, device) = fixture().await;
            let port = Broken {
                case: broken,
                inner,
            };
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
                broken == case,
                "adapter broken for {broken}, case {case}"
            );
        }
    }
}
