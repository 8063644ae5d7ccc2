//! What all tasks share: the ports, the number of running tasks, and the request to stop.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::KeyWrites;
use tokio::sync::{Notify, SetOnce, watch};

use crate::event::RunnerEvent;
use crate::pacing::Pacing;

/// A task of the runner.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts a task on the runtime of the service, and returns without waiting for it.
pub(crate) type Spawn = dyn Fn(Task) + Send + Sync;

/// Receives the events of the tasks.
pub(crate) type Observe = dyn Fn(&RunnerEvent<'_>) + Send + Sync;

pub(crate) struct Context {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) pacing: Pacing,
    /// Notified when all open writes are to be reconciled.
    pub(crate) reconcile: Notify,
    spawn: Arc<Spawn>,
    observe: Arc<Observe>,
    state: watch::Sender<State>,
    /// The name of the first loop that ended although the runner was not stopped.
    failed: SetOnce<&'static str>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    running: usize,
}

impl Context {
    pub(crate) fn new(
        writes: Arc<KeyWrites>,
        pacing: Pacing,
        spawn: Arc<Spawn>,
        observe: Arc<Observe>,
    ) -> Self {
        Self {
            writes,
            pacing: pacing.within_bounds(),
            reconcile: Notify::new(),
            spawn,
            observe,
            state: watch::Sender::default(),
            failed: SetOnce::new(),
        }
    }

    pub(crate) fn observe(&self, event: &RunnerEvent<'_>) {
        (self.observe)(event);
    }

    /// Starts a task that ends only when the runner is stopped.
    pub(crate) fn spawn_loop(
        self: &Arc<Self>,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(name, true, task);
    }

    /// Starts a task that ends by itself.
    pub(crate) fn spawn_job(
        self: &Arc<Self>,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(name, false, task);
    }

    fn spawn(
        self: &Arc<Self>,
        name: &'static str,
        is_loop: bool,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        // Nobody waits for more tasks.
        self.state.send_if_modified(|state| {
            state.running += 1;
            false
        });
        let running = RunningTask {
            context: self.clone(),
            name,
            is_loop,
        };
        (self.spawn)(Box::pin(async move {
            let _running = running;
            task.await;
        }));
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state.borrow().stopping
    }

    /// Waits until the runner is being stopped.
    pub(crate) async fn stopping(&self) {
        self.wait_until(|state| state.stopping).await;
    }

    /// Waits for this time, or until the runner is being stopped. Returns whether the task may go on.
    pub(crate) async fn pause(&self, span: Duration) -> bool {
        let timer = self.writes.timer();
        tokio::select! {
            () = self.stopping() => false,
            () = timer.sleep_until(timer.tick().after(span)) => true,
        }
    }

    /// The pause after one of this length.
    pub(crate) fn longer(&self, pause: Duration) -> Duration {
        (pause * 2).min(self.pacing.max_pause)
    }

    pub(crate) fn stop(&self) {
        self.state.send_modify(|state| state.stopping = true);
    }

    /// Waits until no task runs.
    pub(crate) async fn ended(&self) {
        self.wait_until(|state| state.running == 0).await;
    }

    /// Waits until a loop has ended although the runner was not stopped. Returns its name.
    pub(crate) async fn failed(&self) -> &'static str {
        self.failed.wait().await
    }

    async fn wait_until(&self, condition: impl FnMut(&State) -> bool) {
        // The sender is in `self`, so the channel is open.
        let _ = self.state.subscribe().wait_for(condition).await;
    }
}

/// Counts a task until it ends, is dropped, or panics.
struct RunningTask {
    context: Arc<Context>,
    name: &'static str,
    is_loop: bool,
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.context.observe(&RunnerEvent::Panicked(self.name));
        }
        if self.is_loop && !self.context.is_stopping() {
            // Another loop may have failed before.
            let _ = self.context.failed.set(self.name);
        }
        self.context.state.send_if_modified(|state| {
            state.running -= 1;
            state.running == 0
        });
    }
}
