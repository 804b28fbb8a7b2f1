//! One tick as the pipeline appends it, for the tests of both stores.

use crate::domain::message::ClientKey;
use crate::ports::{Append, AppendError, MessageLog, NewMessage, Run, SendKey, Sent};

/// One tick: (conversation, sender, content) each, with these message ids and client ids.
pub(super) fn append_as(
    log: &mut impl MessageLog,
    messages: &[(u64, u64, Vec<u8>)],
    ids: &[u64],
    keys: &[String],
) -> Result<Vec<Sent>, AppendError> {
    let keys: Vec<ClientKey> = keys.iter().map(|key| ClientKey::parse(key).unwrap()).collect();
    let mut runs: Vec<Run> = Vec::new();
    let mut order: Vec<usize> = (0..messages.len()).collect();
    order.sort_by_key(|&at| messages[at].0);
    for (start, &at) in (0u32..).zip(&order) {
        match runs.last_mut() {
            Some(run) if run.conversation == messages[at].0 => run.count += 1,
            _ => {
                runs.push(Run { conversation: messages[at].0, first_seq: 0, count: 1, start });
            }
        }
    }
    log.place(&mut runs)?;
    let mut sent = vec![Sent::default(); messages.len()];
    for run in &runs {
        for n in 0..run.count {
            let at = order[(run.start + n) as usize];
            sent[at] = Sent { seq: run.first_seq + u64::from(n), message_id: ids[at] };
        }
    }
    let new: Vec<NewMessage<'_>> = order
        .iter()
        .map(|&at| NewMessage {
            message_id: ids[at],
            sender: messages[at].1,
            msg_type: 1,
            key: &keys[at],
            content: &messages[at].2,
        })
        .collect();
    let mut send_keys: Vec<SendKey<'_>> = (0..messages.len())
        .map(|at| SendKey {
            key: &keys[at],
            conversation: messages[at].0,
            sender: messages[at].1,
            sent: sent[at],
        })
        .collect();
    send_keys.sort_by_key(|key| key.key.clone());
    log.append(Append { runs: &runs, messages: &new, keys: &send_keys })?;
    Ok(sent)
}
