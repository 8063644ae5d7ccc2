use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::broker::Broker;
use crate::connection::{Connection, ConnectionState, NotSent};
use crate::message::Handler;
use crate::reconnect::Runner;
use crate::session_options::SessionOptions;

/// A client that connects again whenever its connection is lost, until the last clone is dropped.
#[derive(Clone)]
pub struct Session {
    state: watch::Receiver<ConnectionState>,
    _task: Arc<AbortOnDrop>,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Starts to connect.
    pub fn start(broker: Broker, options: SessionOptions, handler: impl Handler) -> Self {
        let down = ConnectionState::Down("not connected yet".into());
        let (tx, state) = watch::channel(down);
        let runner = Runner::new(broker, options, handler, tx);
        let task = tokio::spawn(runner.run());
        Self {
            state,
            _task: Arc::new(AbortOnDrop(task.abort_handle())),
        }
    }

    /// The current connection.
    ///
    /// # Errors
    /// There is no connection with all its subscriptions; the text says why.
    pub fn connection(&self) -> Result<Connection, NotSent> {
        match &*self.state.borrow() {
            ConnectionState::Up(connection) => Ok(connection.clone()),
            ConnectionState::Down(reason) => Err(NotSent(reason.to_string())),
        }
    }

    /// Waits for a connection for at most `timeout`.
    ///
    /// # Errors
    /// There is no connection with all its subscriptions; the text says why.
    pub async fn connection_within(&self, timeout: Duration) -> Result<Connection, NotSent> {
        let mut state = self.state.clone();
        let up = state.wait_for(|state| matches!(state, ConnectionState::Up(_)));
        let _ = tokio::time::timeout(timeout, up).await;
        self.connection()
    }
}
