//! How the loop ends: orders go back, the last batch is written, and Asterisk gets its goodbye. Owns how long each may take. Must
//! never end a call.

use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use super::super::order_fetcher::FetcherMessage;
use super::super::systemd;
use super::{Ending, Inputs, LoopError, NodeLoop};
use crate::ami_client::ToAmi;
use crate::node::Input;
use crate::registry::RegistryError;

/// How long a stopping daemon waits for orders that are being fetched.
const LAST_ORDERS: Duration = Duration::from_millis(600);
/// How long a stopping daemon waits for Redis to confirm its last batch, orders included.
const LAST_WORDS: Duration = Duration::from_millis(1_200);

impl NodeLoop {
    /// Leaves the rotation, writes the last batch to Redis and logs off from Asterisk. Calls stay.
    pub(super) async fn stop(mut self, mut inputs: Inputs, ending: Ending) -> Result<(), LoopError> {
        if ending == Ending::Process {
            systemd::stopping();
        }
        self.outputs.open.send_replace(false);
        self.outputs.status.send_modify(|status| status.stopping = true);
        let give_up = self.clock.now().after(LAST_WORDS);
        self.node.handle(Input::Stopping, self.clock.now());
        if self.registered {
            self.last_orders(&mut inputs.orders).await;
        }
        let mut last = false;
        while self.watchdog.is_busy() || !last {
            if !self.watchdog.is_busy() {
                self.carry_out();
                self.write(true);
                last = true;
            }
            tokio::select! {
                done = inputs.done.recv() => match done {
                    Some(done) => {
                        // A Redis that has just lost this node gets its calls again, which only this daemon knows; unless
                        // the next generation reports them.
                        let forgotten = done.registered || matches!(done.error, Some(RegistryError::Forgotten));
                        last &= ending == Ending::Anew || !forgotten;
                        self.written(done)?;
                    }
                    None => break,
                },
                () = self.clock.sleep_until(Some(give_up)) => {
                    warn!(node = %self.name, "Redis did not confirm the shutdown in time: the lease will expire by \
                        itself");
                    break;
                }
            }
        }
        if self.outputs.ami.try_send(ToAmi::Logoff).is_ok() {
            // Ends when the goodbye is said; the task drops its side.
            let goodbye = async { while inputs.ami.recv().await.is_some() {} };
            tokio::select! {
                () = goodbye => {}
                () = self.clock.sleep_until(Some(self.clock.now().after(Duration::from_millis(300)))) => {}
            }
        }
        Ok(())
    }

    /// Gives back fetched orders, including those of a fetch in progress: after it the fetcher ends.
    async fn last_orders(&mut self, orders: &mut mpsc::Receiver<FetcherMessage>) {
        let until = Some(self.clock.now().after(LAST_ORDERS));
        loop {
            tokio::select! {
                word = orders.recv() => match word {
                    Some(word) => self.ordered(word),
                    None => return,
                },
                () = self.clock.sleep_until(until) => return,
            }
        }
    }
}
