use std::sync::Arc;

use keywright_domain::KeyWrites;
use keywright_domain::ports::DeviceReports;

use crate::context::{Context, Observe, Spawn, Task};
use crate::event::RunnerEvent;
use crate::maintain::Maintainer;
use crate::pacing::Pacing;
use crate::publish::{EventHint, EventPublisher, publish_events};
use crate::purge::purge;
use crate::recover::recover;
use crate::settle::settle_reports;

/// The background tasks of one process, before their start. Start them once for each `KeyWrites`.
pub struct Runner {
    writes: Arc<KeyWrites>,
    spawn: Arc<Spawn>,
    observe: Arc<Observe>,
    pacing: Pacing,
    publishers: Vec<(Arc<dyn EventPublisher>, EventHint)>,
}

impl Runner {
    /// `spawn` starts a task on the runtime of the service and returns without waiting for it, for instance
    /// `|task| drop(tokio::spawn(task))`. By default nothing observes the tasks, and their pacing is that of [`Pacing::default`].
    pub fn new(writes: Arc<KeyWrites>, spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self {
            writes,
            spawn: Arc::new(spawn),
            observe: Arc::new(|_: &RunnerEvent<'_>| ()),
            pacing: Pacing::default(),
            publishers: Vec::new(),
        }
    }

    /// Passes all events of the tasks to `observe`, for logs and metrics. It is called within a task, so it must not block.
    #[must_use]
    pub fn observer(mut self, observe: impl Fn(&RunnerEvent<'_>) + Send + Sync + 'static) -> Self {
        self.observe = Arc::new(observe);
        self
    }

    /// Replaces the pacing.
    #[must_use]
    pub fn pacing(mut self, pacing: Pacing) -> Self {
        self.pacing = pacing;
        self
    }

    /// Passes all recorded events to `publisher`, at once after each `hint` and otherwise every [`Pacing::period`]. The events of saves by
    /// other processes are passed, too. Call it once for each bus.
    #[must_use]
    pub fn publish_events(
        mut self,
        publisher: impl EventPublisher + 'static,
        hint: EventHint,
    ) -> Self {
        self.publishers.push((Arc::new(publisher), hint));
        self
    }

    /// Starts the tasks, with one that settles reports for each of these streams. Reports may have been missed before, so the tasks
    /// reconcile all open writes first.
    pub fn start(self, reports: Vec<Arc<dyn DeviceReports>>) -> RunningTasks {
        let context = Context::new(self.writes, self.pacing, self.spawn, self.observe);
        let context = Arc::new(context);
        context.reconcile.notify_one();
        for reports in reports {
            context.spawn_loop(
                "the settlement of reports",
                settle_reports(context.clone(), reports),
            );
        }
        let maintainer = Arc::new(Maintainer::new(context.clone()));
        context.spawn_loop(
            "the reconciliation of open writes",
            maintainer.clone().reconcile_all(),
        );
        context.spawn_loop("the maintenance of due writes", maintainer.maintain());
        context.spawn_loop("the deletion of old records", purge(context.clone()));
        for (publisher, hint) in self.publishers {
            context.spawn_loop(
                "the publishing of events",
                publish_events(context.clone(), publisher, hint),
            );
        }
        for _ in 0..context.pacing.recoveries {
            context.spawn_loop("the recovery of intents", recover(context.clone()));
        }
        RunningTasks { context }
    }
}

/// Tasks that are running. If this is dropped, they go on.
pub struct RunningTasks {
    context: Arc<Context>,
}

impl RunningTasks {
    /// Waits until one of the tasks that run until the stop has ended before it: a stream of reports has ended, or the task has panicked or
    /// was dropped by its runtime. Returns the name of the task, for instance "the settlement of reports". The process should then be
    /// restarted. The panic of a job, such as the settlement of one report, is only a [`RunnerEvent::Panicked`].
    pub async fn failure(&self) -> &'static str {
        self.context.failed().await
    }

    /// Begins no more work, and waits until what is in progress has ended, usually for less than
    /// [`Settings::request_timeout`](keywright_domain::Settings::request_timeout). A caller that drops this future does not prevent the
    /// stop. A report that is not settled then is not acknowledged: it is delivered again, or found on the shadow after the next start.
    pub async fn stop(&self) {
        self.context.stop();
        self.context.ended().await;
    }
}
