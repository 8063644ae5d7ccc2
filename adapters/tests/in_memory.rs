//! The in-memory adapters fulfil the contracts of their ports.
#![cfg(feature = "memory")]

mod lock_repo {
    use std::sync::Arc;

    use keywright_adapters::lock_repo::InMemoryLockRepo;
    use keywright_testkit::ManualTimer;
    use keywright_testkit::lock_repo::StoreFixture;

    async fn fixture() -> StoreFixture {
        let timer = ManualTimer::default();
        let repo = InMemoryLockRepo::new(Arc::new(timer.clone()));
        StoreFixture::volatile(Arc::new(repo), move |span| timer.advance(span))
    }

    mod contract {
        keywright_testkit::lock_repo_cases!(volatile super::fixture);
    }
}

mod shadow_port {
    use std::sync::Arc;

    use async_trait::async_trait;
    use keywright_adapters::shadow::InMemoryShadow;
    use keywright_domain::model::ThingName;
    use keywright_shadow::{ShadowName, ShadowService};
    use keywright_testkit::shadow_port::Device;
    use serde_json::Value;

    struct Locks(ShadowService);

    fn name() -> ShadowName {
        ShadowName::Named(InMemoryShadow::DEFAULT_NAME.into())
    }

    #[async_trait]
    impl Device for Locks {
        async fn report(&self, thing: &ThingName, document: &str) {
            let document = document.as_bytes();
            let accepted = self.0.update(thing.as_str(), &name(), document).await;
            accepted.expect("a report");
        }

        async fn state(&self, thing: &ThingName) -> Value {
            let found = self.0.get(thing.as_str(), &name(), b"").await;
            found.expect("a shadow").body()["state"].clone()
        }
    }

    async fn fixture() -> (Arc<InMemoryShadow>, Arc<Locks>) {
        let shadow = InMemoryShadow::of_this_process();
        let locks = Locks(shadow.service().clone());
        (Arc::new(shadow), Arc::new(locks))
    }

    mod contract {
        keywright_testkit::shadow_port_cases!(super::fixture);
    }
}
