use std::thread::{self, JoinHandle};

/// Threads that are waited for when this is dropped. What makes them end has to be dropped earlier, so it is a field before this
/// one, or a local variable after it.
#[derive(Debug, Default)]
pub struct JoinOnDrop(Vec<JoinHandle<()>>);

impl JoinOnDrop {
    /// Starts a thread under this name.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let thread = thread::Builder::new().name(name.to_owned());
        self.0.push(thread.spawn(work)?);
        Ok(())
    }
}

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        let this = thread::current().id();
        for thread in self.0.drain(..).filter(|t| t.thread().id() != this) {
            // If the thread panicked, the panic was printed there.
            let _ = thread.join();
        }
    }
}
