//! Calls of the shadow port with the shadow timeout.

use std::pin::pin;

use super::deadline::bounded;
use super::key_writes::{ClientTokens, KeyWrites};
use crate::model::{FailureReason, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName};
use crate::ports::ShadowError;

impl KeyWrites {
    /// Sends one update. An update that runs into the timeout may still be applied.
    pub(super) async fn update_shadow(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let deadline = self.deadline(self.settings.shadow_timeout);
        let call = self.ports.shadow.update(thing, change);
        let answer = bounded(&*self.ports.timer, deadline, pin!(call)).await;
        answer.unwrap_or_else(|| Err(timed_out()))
    }

    /// Reads a shadow and creates it if it does not exist.
    pub(super) async fn read_or_create_shadow(
        &self,
        thing: &ThingName,
        tokens: &mut ClientTokens,
    ) -> Result<ShadowSnapshot, ShadowError> {
        if let Some(found) = self.read_shadow(thing, tokens).await? {
            return Ok(found);
        }
        let create = ShadowChange::create(tokens.next());
        let version = self.update_shadow(thing, create).await?;
        Ok(ShadowSnapshot {
            version,
            ..ShadowSnapshot::default()
        })
    }

    pub(super) async fn read_shadow(
        &self,
        thing: &ThingName,
        tokens: &mut ClientTokens,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let deadline = self.deadline(self.settings.shadow_timeout);
        let call = self.ports.shadow.read(thing, tokens.next());
        let answer = bounded(&*self.ports.timer, deadline, pin!(call)).await;
        answer.unwrap_or_else(|| Err(timed_out()))
    }
}

fn timed_out() -> ShadowError {
    ShadowError::Unknown("no answer in time".into())
}

/// The reason that clients read for a shadow error.
pub(super) fn reason_of(error: ShadowError) -> FailureReason {
    match error {
        ShadowError::NotApplied { reason, .. } | ShadowError::Refused { reason, .. } => reason,
        ShadowError::Conflict => FailureReason::ShadowConflict,
        ShadowError::Unknown(_) => FailureReason::Unavailable,
    }
}
