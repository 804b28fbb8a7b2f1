//! What administrators ask.

use proto::v1::admin_server::Admin;
use proto::v1::{
    DeadLetter, GatewayRef, GatewayStatus, KickUserReply, KickUserRequest, ListDeadLettersReply,
    ListDeadLettersRequest, ReplayDeadLettersReply, ReplayDeadLettersRequest, StatusReply,
    StatusRequest,
};
use tonic::{Request, Response, Status};

use super::{Parts, Shared, status};

/// Dead letters on a page unless told otherwise, and at most.
const LETTERS_DEFAULT: u32 = 50;
const LETTERS_MAX: u32 = 500;
/// Dead letters that one request may replay.
const REPLAY_MAX: usize = 1000;
/// Close codes of applications.
const CODES: std::ops::RangeInclusive<u32> = 4000..=4999;
/// Longest reason that fits into a close frame.
const REASON_MAX_BYTES: usize = 123;

#[tonic::async_trait]
impl Admin for Shared {
    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersReply>, Status> {
        let ListDeadLettersRequest { cursor, limit } = request.into_inner();
        let limit = if limit == 0 { LETTERS_DEFAULT } else { limit.min(LETTERS_MAX) };
        let work = move |parts: &Parts| {
            let items = parts.letters.page(cursor, limit + 1).map_err(|error| status(&error))?;
            Ok(page(items, cursor, limit as usize))
        };
        self.run(&self.others, "Admin.ListDeadLetters", work).await
    }

    async fn replay_dead_letters(
        &self,
        request: Request<ReplayDeadLettersRequest>,
    ) -> Result<Response<ReplayDeadLettersReply>, Status> {
        let ids = request.into_inner().ids;
        if ids.len() > REPLAY_MAX {
            return Err(Status::invalid_argument("a request replays at most 1000 dead letters"));
        }
        let work =
            move |parts: &Parts| Ok(ReplayDeadLettersReply { replayed: replay(parts, &ids)? });
        self.run(&self.others, "Admin.ReplayDeadLetters", work).await
    }

    async fn kick_user(
        &self,
        request: Request<KickUserRequest>,
    ) -> Result<Response<KickUserReply>, Status> {
        let KickUserRequest { user_id, code, reason } = request.into_inner();
        let code = match u16::try_from(code) {
            Ok(code) if CODES.contains(&code.into()) => code,
            _ => return Err(Status::invalid_argument("code must be 4000 to 4999")),
        };
        if reason.len() > REASON_MAX_BYTES {
            return Err(Status::invalid_argument("reason is longer than 123 bytes"));
        }
        let work = move |parts: &Parts| {
            let kicked = parts.operations.kick(user_id, code, &reason);
            let connections = kicked.map_err(|failure| Status::unavailable(failure.detail))?;
            Ok(KickUserReply { connections })
        };
        self.run(&self.others, "Admin.KickUser", work).await
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        self.run(&self.others, "Admin.Status", |parts| Ok(state(parts))).await
    }
}

fn page(mut items: Vec<DeadLetter>, cursor: u64, limit: usize) -> ListDeadLettersReply {
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().map_or(cursor, |letter| letter.id);
    ListDeadLettersReply { items, next_cursor, has_more }
}

/// Puts records back where they came from, each durable there before it is marked.
fn replay(parts: &Parts, ids: &[u64]) -> Result<Vec<u64>, Status> {
    let mut replayed = Vec::with_capacity(ids.len());
    for &id in ids {
        match replay_one(parts, id) {
            Ok(true) => replayed.push(id),
            Ok(false) => {}
            // Those before it are done: the caller learns which.
            Err(_) if !replayed.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(replayed)
}

fn replay_one(parts: &Parts, id: u64) -> Result<bool, Status> {
    let Some(letter) = parts.letters.get(id).map_err(|error| status(&error))? else {
        return Ok(false);
    };
    let put = parts.outbox.put_back(&letter.topic, letter.partition, &letter.payload);
    put.map_err(|error| Status::unavailable(error.to_string()))?;
    parts.letters.replayed(id).map_err(|error| status(&error))?;
    Ok(true)
}

fn state(parts: &Parts) -> StatusReply {
    let about = |no| {
        let life = parts.gateways.life(no)?;
        let gateway = Some(GatewayRef { id: life.id.to_string(), epoch: life.epoch });
        let connections = parts.reports.count(no).unwrap_or(0);
        Some(GatewayStatus { gateway, connections })
    };
    StatusReply {
        instance: parts.about.instance.clone(),
        roles: parts.about.roles.clone(),
        gateways: parts.gateways.live().into_iter().filter_map(about).collect(),
        database: parts.operations.ready(),
        redis: parts.reports.is_up(),
        kafka: parts.outbox.health().is_up(),
        etcd: (parts.about.etcd)(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_whether_there_is_more() {
        let letters =
            |ids: &[u64]| ids.iter().map(|&id| DeadLetter { id, ..Default::default() }).collect();
        let first = page(letters(&[9, 8, 7]), 0, 2);
        assert!(first.has_more && first.next_cursor == 8 && first.items.len() == 2);
        let last = page(letters(&[7]), 8, 2);
        assert!(!last.has_more && last.next_cursor == 7);
        let none = page(letters(&[]), 7, 2);
        assert!(!none.has_more && none.next_cursor == 7 && none.items.is_empty());
    }
}
