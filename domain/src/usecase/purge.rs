//! Deletion of expired records.

use super::key_writes::KeyWrites;
use crate::ports::RepoError;

impl KeyWrites {
    /// Deletes at most `limit` expired idempotency records and at most `limit` ended writes that are older than
    /// [`Limits::write_retention`](crate::policy::Limits::write_retention). Returns how many of both were deleted. Call it every
    /// few seconds, and again at once while it deletes `limit` or more.
    ///
    /// # Errors
    /// The store failed.
    pub async fn purge(&self, limit: usize) -> Result<usize, RepoError> {
        let now = self.ports.clock.now();
        let ended_before = now.before(self.settings.limits.write_retention);
        self.ports.history.purge(now, ended_before, limit).await
    }
}
