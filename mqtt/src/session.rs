use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::connection::{Connection, ConnectionState, NotSent};
use crate::message::Handler;
use crate::reconnect::Runner;
use crate::session_options::SessionOptions;

/// A client that connects again whenever its connection is lost, until the last clone is dropped.
#[derive(Clone)]
pub struct Session {
    state: watch::Receiver<ConnectionState>,
    /// Aborted with the last clone.
    _task: Arc<JoinSet<()>>,
}

impl Session {
    /// Starts to connect.
    pub fn start(broker: Broker, options: SessionOptions, handler: impl Handler) -> Self {
        let down = ConnectionState::Down("not connected yet".into());
        let (tx, state) = watch::channel(down);
        let runner = Runner {
            broker,
            options,
            handler,
            state: tx,
        };
        let mut task = JoinSet::new();
        task.spawn(runner.run());
        Self {
            state,
            _task: Arc::new(task),
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
