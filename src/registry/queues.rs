//! The queues as operators see them: what waits in them, and logins that nobody could read. Owns which of them may be emptied.
//! Must never receive a message: that is for the daemons and for the programs that wait for answers.

use redis::ScriptInvocation;
use serde::Serialize;

use super::{Registry, RegistryError};

/// Where logins that nobody can read are kept.
pub const DEAD: &str = "logins-dead";
/// Rows of one call.
const PAGE: usize = 100;
/// Messages that one call gives back or drops.
const BATCH: usize = 50;

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueRow {
    /// Its name.
    pub queue: String,
    /// Messages in it.
    pub messages: u64,
    /// Those of them that can be received now; the others are with a reader, or for later.
    pub visible: u64,
    /// How long the oldest visible one has waited, in ms.
    pub oldest_ms: u64,
    /// Messages that were ever sent to it.
    pub sent: u64,
    /// How often a message of it was ever received.
    pub received: u64,
}

/// One message, as it was sent. Its text is another program's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueMessage {
    /// RSMQ's id.
    pub id: String,
    /// The body; what is no UTF-8 in it is replaced.
    pub body: String,
    /// How often it was received.
    pub received: u64,
    /// When it was sent: ms since 1970.
    pub sent: u64,
}

/// What is done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptying {
    /// Those of [`DEAD`] go back to the inbox.
    Retry,
    /// They are gone.
    Drop,
}

impl Registry {
    /// All queues, by name.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn queues(&mut self) -> Result<Vec<QueueRow>, RegistryError> {
        type Cells = (String, u64, u64, u64, u64, u64);
        let (mut rows, mut from) = (Vec::new(), String::new());
        loop {
            let build = |call: &mut ScriptInvocation<'_>| {
                call.key(&self.namespace).arg("list").arg("").arg(PAGE).arg(&from);
            };
            let (page, next): (Vec<Cells>, String) = self.connector.run(&self.scripts.queue, build).await?;
            rows.extend(page.into_iter().map(|(queue, messages, visible, oldest_ms, sent, received)| QueueRow {
                queue,
                messages,
                visible,
                oldest_ms,
                sent,
                received,
            }));
            if next.is_empty() {
                return Ok(rows);
            }
            from = next;
        }
    }

    /// The first `most` messages of a queue; nobody is kept from receiving them.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn peek(&mut self, queue: &str, most: usize) -> Result<Vec<QueueMessage>, RegistryError> {
        let mut rows = Vec::new();
        while rows.len() < most {
            let wanted = (most - rows.len()).min(BATCH);
            let build = |call: &mut ScriptInvocation<'_>| {
                call.key(&self.namespace).arg("peek").arg(queue).arg(wanted).arg(rows.len());
            };
            type Cells = (String, redis::Value, u64, u64);
            let (page, _): (Vec<Cells>, String) = self.connector.run(&self.scripts.queue, build).await?;
            let count = page.len();
            rows.extend(page.into_iter().map(|(id, body, received, sent)| {
                let bytes = redis::from_redis_value::<Vec<u8>>(body).unwrap_or_default();
                QueueMessage { id, body: String::from_utf8_lossy(&bytes).into_owned(), received, sent }
            }));
            if count < wanted {
                break;
            }
        }
        Ok(rows)
    }

    /// Gives back or drops one message of a queue, or all; how many.
    ///
    /// # Errors
    /// Redis unavailable: some may be done.
    pub async fn empty(&mut self, how: Emptying, queue: &str, message: Option<&str>) -> Result<u64, RegistryError> {
        let word = match how {
            Emptying::Retry => "retry",
            Emptying::Drop => "drop",
        };
        let mut all = 0;
        loop {
            let build = |call: &mut ScriptInvocation<'_>| {
                call.key(&self.namespace).arg(word).arg(queue).arg(BATCH).arg(message.unwrap_or_default());
            };
            let (done, more): (u64, String) = self.connector.run(&self.scripts.queue, build).await?;
            all += done;
            if more.is_empty() {
                return Ok(all);
            }
        }
    }
}
