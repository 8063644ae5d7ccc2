//! What all tasks share: the ports, the number of running tasks, and the request to stop.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::KeyWrites;
use tokio::sync::{Notify, Semaphore, watch};

use crate::event::{RunnerEvent, RunnerObserver};
use crate::pacing::Pacing;

/// A task of the runner.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts tasks on the runtime of the service. A closure is a spawner, for instance `|task: Task| drop(tokio::spawn(task))`.
pub trait Spawner: Send + Sync {
    /// Starts `task`, and returns without waiting for it.
    fn spawn(&self, task: Task);
}

impl<F: Fn(Task) + Send + Sync> Spawner for F {
    fn spawn(&self, task: Task) {
        self(task);
    }
}

pub(crate) struct Context {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) pacing: Pacing,
    /// Notified when all open writes are to be reconciled.
    pub(crate) reconcile: Notify,
    spawner: Arc<dyn Spawner>,
    observer: Arc<dyn RunnerObserver>,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    running: usize,
    /// The name of the first loop that ended although the runner was not stopped.
    failed: Option<&'static str>,
}

impl Context {
    pub(crate) fn new(
        writes: Arc<KeyWrites>,
        pacing: Pacing,
        spawner: Arc<dyn Spawner>,
        observer: Arc<dyn RunnerObserver>,
    ) -> Self {
        Self {
            writes,
            pacing: within_bounds(pacing),
            reconcile: Notify::new(),
            spawner,
            observer,
            state: watch::Sender::default(),
        }
    }

    pub(crate) fn observe(&self, event: &RunnerEvent<'_>) {
        self.observer.observe(event);
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
        self.spawner.spawn(Box::pin(async move {
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
        let mut name = None;
        self.wait_until(|state| {
            name = state.failed;
            name.is_some()
        })
        .await;
        name.unwrap_or_default()
    }

    async fn wait_until(&self, condition: impl FnMut(&State) -> bool) {
        // The sender is in `self`, so the channel is open.
        let _ = self.state.subscribe().wait_for(condition).await;
    }
}

/// The bounds are documented at the fields.
fn within_bounds(pacing: Pacing) -> Pacing {
    let at_once = |n: usize| n.clamp(1, Semaphore::MAX_PERMITS);
    let period = |span: Duration| span.max(Duration::from_millis(1));
    Pacing {
        period: period(pacing.period),
        max_pause: period(pacing.max_pause),
        recoveries: pacing.recoveries.clamp(1, 1024),
        maintained_locks: at_once(pacing.maintained_locks),
        maintenance_interval: pacing.maintenance_interval,
        settlements: at_once(pacing.settlements),
        purge_period: period(pacing.purge_period),
        page: pacing.page.clamp(1, 10_000),
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
        self.context.state.send_if_modified(|state| {
            state.running -= 1;
            let failed = self.is_loop && !state.stopping;
            if failed {
                state.failed.get_or_insert(self.name);
            }
            failed || state.running == 0
        });
    }
}
