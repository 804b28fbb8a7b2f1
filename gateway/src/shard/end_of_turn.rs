//! The end of a turn: messages and requests leave by the uplink, bytes by one submit, and what is
//! finished is closed.

use std::io;
use std::os::fd::AsFd;

use proto::v1::UpstreamBatch;

use super::drain::Drain;
use super::outbound::Shares;
use super::outgoing::{HeadIndex, Laid, Memory, Place, recycled};
use super::stats;
use super::turn::Shard;
use crate::limits::ARENA_FLUSH_BYTES;
use crate::net::poll_set::Token;
use crate::net::sockets::{self, Bytes, Send};
use crate::session::{Phase, answer};

/// Receivers collected before a turn flushes early.
const FLUSH_RECEIVERS: usize = 4096;

impl Shard {
    pub(super) fn end_turn(&mut self) {
        self.offer_messages();
        self.offer_calls();
        self.flush_sends();
        self.close_finished();
        if self.drain != Drain::No {
            self.go_on_draining();
            self.flush_sends();
            self.close_finished();
        }
    }

    fn offer_messages(&mut self) {
        if self.outputs.messages.is_empty() {
            return;
        }
        let frames = std::mem::take(&mut self.outputs.messages);
        let count = frames.len();
        match self.uplink.messages.offer(UpstreamBatch { shard: self.index, frames }) {
            Ok(()) => {
                self.in_flight += count;
                stats::add(&self.stats.messages, count);
            }
            Err(batch) => self.refuse_messages(batch.frames),
        }
    }

    fn offer_calls(&mut self) {
        if self.outputs.calls.is_empty() && self.unreported.is_empty() {
            return;
        }
        // Ends that had to wait go first: their slots may have been taken by new logins.
        let mut calls = std::mem::take(&mut self.unreported);
        calls.append(&mut self.outputs.calls);
        if let Err(calls) = self.uplink.calls.offer(calls) {
            self.refuse_calls(calls);
            // A refused login ends its connection, and that end is one more to report.
            self.unreported.append(&mut self.outputs.calls);
        }
    }

    /// Sends early when a turn has collected so much that waiting for its end would cost memory.
    pub(super) fn flush_if_full(&mut self) {
        if self.outputs.bytes.len() >= ARENA_FLUSH_BYTES
            || self.outgoing.receivers() >= FLUSH_RECEIVERS
        {
            self.flush_sends();
        }
    }

    /// Sends all output collected so far. Afterwards the arena is empty, and what a socket did not
    /// take is in its tail queue.
    pub(super) fn flush_sends(&mut self) {
        if self.outgoing.receivers() == 0 {
            self.outputs.bytes.clear();
            return;
        }
        let mut places = std::mem::take(&mut self.places);
        let mut arena = std::mem::take(&mut self.outputs.bytes);
        let received = std::mem::take(&mut self.buffer);
        let laid =
            self.outgoing.lay_out(&Memory { arena: &arena, received: &received }, &mut places);
        self.send_laid(&laid, &mut places);
        self.outgoing.clear(laid.into_spare());
        places.clear();
        self.places = places;
        self.buffer = received;
        arena.clear();
        // One large turn must not hold its memory for ever.
        arena.shrink_to(2 * ARENA_FLUSH_BYTES);
        self.outputs.bytes = arena;
    }

    fn send_laid(&mut self, laid: &Laid<'_>, places: &mut Vec<(Token, Place)>) {
        let mut shares = Shares::default();
        // A connection with a tail gets no send of its own: the tail goes first.
        places.retain(|(token, place)| {
            let Some(connection) = self.table.get_mut(*token) else { return false };
            connection.outgoing = HeadIndex::NONE;
            let Some(outbound) = &mut connection.outbound else { return true };
            outbound.append(laid.bytes(place), 0, &mut shares);
            false
        });
        let mut shorts = Vec::new();
        let mut batch = recycled(std::mem::take(&mut self.batch));
        batch.extend(places.iter().filter_map(|(token, place)| {
            let fd = self.table.get(*token)?.socket.as_fd();
            Some(Send { fd, bytes: laid.bytes(place) })
        }));
        self.sends.flush(&batch, |index, outcome| shorts.push((index, outcome)));
        self.batch = recycled(batch);
        for (index, outcome) in shorts {
            if let Some((token, place)) = places.get(index) {
                self.keep_rest(*token, laid.bytes(place), outcome, &mut shares);
            }
        }
    }

    /// A send fell short: the rest waits until there is room.
    fn keep_rest(
        &mut self,
        token: Token,
        bytes: Bytes<'_>,
        sent: io::Result<usize>,
        shares: &mut Shares,
    ) {
        let Some(connection) = self.table.get_mut(token) else { return };
        let Ok(sent) = sent else {
            // The next receive sees the end and does what is due.
            connection.receive_put_off = true;
            return self.receive_put_off(token);
        };
        let outbound = connection.outbound.get_or_insert_default();
        outbound.append(bytes, sent, shares);
        self.watch_writable(token, true);
    }

    pub(super) fn watch_writable(&mut self, token: Token, on: bool) {
        let Some(connection) = self.table.get(token) else { return };
        if let Err(error) = self.poll.watch_writable(&connection.socket, token, on) {
            tracing::warn!(%error, "cannot watch for room to send");
        }
    }

    /// Room came free: what waits goes first, then the marks of what was left out.
    pub(super) fn send_waiting(&mut self, token: Token) {
        loop {
            let Some(connection) = self.table.get_mut(token) else { return };
            let Some(outbound) = &mut connection.outbound else { return };
            if outbound.len() > 0 {
                match outbound.send(|bytes| bytes.send_to(&connection.socket)) {
                    // The error is seen as the end by the receive that the same event asks for.
                    Ok(0) | Err(_) => return,
                    Ok(_) => continue,
                }
            }
            let lagged = outbound.take_lagged();
            if lagged.is_empty() {
                connection.outbound = None;
                self.watch_writable(token, false);
                if self
                    .table
                    .get(token)
                    .is_some_and(|connection| connection.session.phase() == Phase::Ended)
                {
                    self.closing.push(token);
                }
                return;
            }
            stats::add(&self.stats.lagged_marks, lagged.len());
            let wire = connection.session.wire();
            let mut frames = Vec::new();
            for lag in &lagged {
                answer::lagged(&mut frames, wire, &lag.conversation_id, lag.from_seq);
            }
            outbound.append_own(&frames);
        }
    }

    /// Connections that have ended and whose bytes are out: we finish sending and wait for the peer to
    /// do the same. Closing at once would reset the connection and destroy the last bytes on their way
    /// whenever the peer has sent something we did not read.
    fn close_finished(&mut self) {
        for token in std::mem::take(&mut self.closing) {
            let Some(connection) = self.table.get_mut(token) else { continue };
            if connection.outbound.is_none() && !connection.finished_sending {
                connection.finished_sending = true;
                sockets::finish_sending(&connection.socket);
            }
            self.receive_put_off(token);
        }
    }
}
