//! Broadcasts the writes that are saved.

use std::sync::Arc;

use keywright_domain::model::{Save, Write};
use tokio::sync::broadcast;

use super::observer::Observer;

/// Sends each write that is saved in this process to the receivers of a channel. Saves of other processes are not sent, so a
/// receiver that must not miss any also reads the store.
pub struct WriteBroadcast(broadcast::Sender<Arc<Write>>);

impl WriteBroadcast {
    pub const fn new(sender: broadcast::Sender<Arc<Write>>) -> Self {
        Self(sender)
    }
}

impl Observer for WriteBroadcast {
    fn saved(&self, save: &Save) {
        if self.0.receiver_count() > 0 {
            for write in &save.writes {
                // `send` fails only if there is no receiver any more.
                let _ = self.0.send(Arc::new(write.clone()));
            }
        }
    }
}
