//! How a conversation's messages reach its members.

use super::sql::{first, run};
use super::{Result, Store};
use crate::domain::ConversationNo;
use crate::ports::Fanout;

const WRITE: u64 = 0;
const READ: u64 = 1;

pub(super) fn fanout_of(mode: u64) -> Fanout {
    if mode == READ { Fanout::Read } else { Fanout::Write }
}

fn mode_of(fanout: Fanout) -> u64 {
    match fanout {
        Fanout::Write => WRITE,
        Fanout::Read => READ,
    }
}

impl Store {
    /// Switches how a conversation's messages reach its members, from the message after `since_seq` on. False if it
    /// was so already.
    pub(crate) fn set_fanout(
        &self,
        no: ConversationNo,
        fanout: Fanout,
        since_seq: u64,
    ) -> Result<bool> {
        let mode = mode_of(fanout);
        self.write(|connection| {
            let sql = "SELECT fanout_mode FROM conversations WHERE id = ? FOR UPDATE";
            match first::<(u64,)>(connection, sql, (no,))? {
                Some((now,)) if now != mode => {}
                _ => return Ok(false),
            }
            let sql = "UPDATE conversations SET fanout_mode = ?, mode_since_seq = ?, version = version + 1 WHERE id = ?";
            run(connection, sql, (mode, since_seq, no))?;
            Ok(true)
        })
    }
}
