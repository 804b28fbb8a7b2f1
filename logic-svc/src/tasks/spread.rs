//! Switching a conversation between the two ways in which messages reach its members, so that no message falls
//! between.
//!
//! **Up.** From 80 % of the threshold on, gateways hear of everybody who joins, and a login is told of the conversation.
//! So once a conversation has grown to the threshold, whoever joins or logs in from then on is known. This task tells
//! gateways everybody who was in before, waits until logins that were answered before that have arrived where they
//! were going, tells everybody once more, and only then switches. Messages meanwhile are addressed to each member.
//!
//! **Down.** The switch comes first; gateways forget the conversation when no tick that still saw the old way can be
//! under way.

use std::time::Duration;

use proto::v1::SpreadInterest;

use super::Parts;
use crate::domain::{ConversationNo, UserId};
use crate::pipeline::VERSIONS_HOLD;
use crate::ports::{Fanout, StoreError};

/// How long the answer to a login may be on its way to its gateway.
const LOGIN_ON_ITS_WAY: Duration = Duration::from_secs(1);
/// How long a tick may take from its look at the members to its last record; that look may be [`VERSIONS_HOLD`] old.
const TICK_ON_ITS_WAY: Duration = Duration::from_secs(30 + VERSIONS_HOLD.as_secs());
/// Members told in one record: about 64 KiB.
const MEMBERS_A_RECORD: u32 = 10_000;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// There was nothing to switch.
    Nothing,
    /// The conversation is large now.
    Large,
    /// It is small now; gateways may forget it after this time.
    Small(Duration),
}

/// Does what the task asks, if the conversation still is as it was.
pub(super) fn spread(
    parts: &Parts,
    task: &SpreadInterest,
    wait: &dyn Fn(Duration),
) -> Result<Spread, StoreError> {
    let Some(crowd) = parts.crowds.crowd(&task.conversation_id)? else {
        return Ok(Spread::Nothing);
    };
    let threshold = parts.watch.threshold();
    match (task.large, crowd.fanout) {
        (true, Fanout::Write) if crowd.members >= threshold.down() => {
            parts.reports.group(crowd.no, true)?;
            tell_all(parts, &task.conversation_id, crowd.no)?;
            wait(LOGIN_ON_ITS_WAY);
            tell_all(parts, &task.conversation_id, crowd.no)?;
            switch(parts, &task.conversation_id, crowd.no, Fanout::Read)?;
            tracing::info!(task.conversation_id, crowd.members, "a conversation is large now");
            Ok(Spread::Large)
        }
        (false, Fanout::Read) if crowd.members < threshold.down() => {
            switch(parts, &task.conversation_id, crowd.no, Fanout::Write)?;
            tracing::info!(task.conversation_id, crowd.members, "a conversation is small now");
            Ok(Spread::Small(TICK_ON_ITS_WAY))
        }
        _ => Ok(Spread::Nothing),
    }
}

/// Whoever does not hear of it goes on in the old way until he asks, which harms nobody until gateways forget.
fn switch(
    parts: &Parts,
    conversation_id: &str,
    no: ConversationNo,
    fanout: Fanout,
) -> Result<(), StoreError> {
    parts.crowds.set_fanout(no, fanout)?;
    if let Err(error) = parts.watch.announce(conversation_id) {
        tracing::warn!(%error, conversation_id, "a switch is heard of late");
    }
    Ok(())
}

fn tell_all(parts: &Parts, conversation_id: &str, no: ConversationNo) -> Result<(), StoreError> {
    let mut after: UserId = 0;
    loop {
        let members = parts.crowds.members_after(no, after, MEMBERS_A_RECORD)?;
        let Some(&last) = members.last() else { return Ok(()) };
        parts.watch.tell(conversation_id, &members, &[])?;
        if members.len() < MEMBERS_A_RECORD as usize {
            return Ok(());
        }
        after = last;
    }
}

/// Tells gateways to forget a conversation, unless it has grown again.
pub(super) fn forget(parts: &Parts, conversation_id: &str) -> Result<(), StoreError> {
    let crowd = parts.crowds.crowd(conversation_id)?;
    let grown = crowd.is_some_and(|crowd| {
        crowd.fanout == Fanout::Read || crowd.members >= parts.watch.threshold().down()
    });
    let Some(crowd) = crowd.filter(|_| !grown) else { return Ok(()) };
    parts.reports.group(crowd.no, false)?;
    parts.watch.forget(conversation_id)
}
