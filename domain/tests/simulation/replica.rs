//! A replica: a process with the use cases and their loops, which a test stops, resumes and kills.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use keywright_domain::{KeyWrites, Ports, Settings};
use tokio::task::JoinHandle;

/// A process: its use cases, its tasks, and whether they run or are stopped (SIGSTOP, SIGCONT).
pub(crate) struct Replica {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) running: Running,
    tasks: Vec<JoinHandle<()>>,
}

/// Whether a process runs. Waiting tasks are woken in a fixed order, which the channels of a runtime do not guarantee.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<Mutex<RunState>>);

#[derive(Default)]
struct RunState {
    stopped: bool,
    waiting: Vec<Waker>,
}

impl Running {
    fn state(&self) -> MutexGuard<'_, RunState> {
        self.0.lock().expect("no panic")
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Returns whether the process runs. Otherwise the task is woken when it continues.
    fn poll_running(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        if state.stopped {
            state.waiting.push(cx.waker().clone());
        }
        !state.stopped
    }

    pub(crate) fn stop(&self) {
        self.state().stopped = true;
    }

    pub(crate) fn resume(&self) {
        let mut state = self.state();
        state.stopped = false;
        state.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Replica {
    pub(crate) fn start(ports: Ports) -> Self {
        let mut settings = Settings::default();
        settings.limits.time_to_live = Duration::from_secs(60);
        settings.limits.confirm_within = Duration::from_secs(5);
        settings.limits.clear_within = Duration::from_secs(5);
        let writes = KeyWrites::new(ports, settings).expect("the settings are valid");
        let mut replica = Self {
            writes: Arc::new(writes),
            running: Running::default(),
            tasks: Vec::new(),
        };
        let writes = replica.writes.clone();
        replica.spawn(async move {
            loop {
                while matches!(writes.recover_next().await, Ok(Some(_))) {}
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let writes = replica.writes.clone();
        replica.spawn(async move {
            let mut page = writes.scheduled_writes(None, 100).await;
            loop {
                for write in page.unwrap_or_default() {
                    writes.maintain_write(&write).await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                page = writes.due_writes(None, 100).await;
            }
        });
        replica
    }

    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.running.clone();
        let mut task = Box::pin(task);
        self.tasks.push(tokio::spawn(poll_fn(move |cx| {
            match running.poll_running(cx) {
                true => task.as_mut().poll(cx),
                false => Poll::Pending,
            }
        })));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}
