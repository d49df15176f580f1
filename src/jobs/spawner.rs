//! Starts processes from one thread that lives as long as the server.
//!
//! A job's process asks the kernel for a signal when its parent dies, and the kernel means by parent the *thread* that
//! forked. Threads of an async runtime come and go; this one does not.

use std::io;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

type Request = (Command, oneshot::Sender<io::Result<Child>>);

/// Starts processes. Clones share the thread.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    requests: mpsc::UnboundedSender<Request>,
}

impl Spawner {
    /// Starts the thread; it ends when the last clone is dropped, and takes the processes with it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(runtime: tokio::runtime::Handle) -> io::Result<Self> {
        let (requests, mut inbox) = mpsc::unbounded_channel::<Request>();
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            let _guard = runtime.enter();
            while let Some((mut command, reply)) = inbox.blocking_recv() {
                // An answer that nobody waits for drops the child, which kills it.
                let _ = reply.send(command.kill_on_drop(true).spawn());
            }
        })?;
        Ok(Self { requests })
    }

    /// Starts a process; it is killed when the [`Child`] is dropped.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| io::Error::other("the thread that starts processes is gone");
        self.requests.send((command, reply)).map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }
}
