//! Take-over of intents whose lease has ended.

use std::pin::pin;

use super::attempt::Attempt;
use super::attempt_runner::PreparedWrite;
use super::deadline::bounded;
use super::key_writes::{ClientTokens, KeyWrites};
use crate::model::WriteId;
use crate::ports::RepoError;

impl KeyWrites {
    /// Step 8: takes over one intent whose lease has ended and resolves it, within [`super::Settings::request_timeout`]. Returns
    /// its write, or `None` where there is no such intent. Call it at start-up and every second, and again at once after `Some`.
    ///
    /// # Errors
    /// The store could not be read. An intent that was not resolved in time is no error: its new lease ends, too, and it is
    /// taken over again.
    pub async fn recover_next(&self) -> Result<Option<WriteId>, RepoError> {
        let lease = self.settings.lease;
        let claimed = self.ports.locks.claim(self.worker, lease).await?;
        let Some(write) = claimed else {
            return Ok(None);
        };
        let Some(intent) = write.intent() else {
            return Ok(Some(write.id));
        };
        let (id, tokens) = (write.id, ClientTokens::new(write.id, intent.epoch));
        let prepared = PreparedWrite {
            write,
            supersedes: Vec::new(),
            snapshot: None,
            tokens,
        };
        let deadline = self.deadline(self.settings.request_timeout);
        let resolving = self.execute(prepared, Attempt::for_recoverer());
        bounded(&*self.ports.timer, deadline, pin!(resolving)).await;
        Ok(Some(id))
    }
}
