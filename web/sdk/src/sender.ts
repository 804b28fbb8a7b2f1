/** Sends the outbox: in order within a conversation, again after every trouble, with the same id. */

import { backoffMs } from "./backoff.js";
import type { Emitter } from "./emitter.js";
import type { Cancel, Environment } from "./env.js";
import { CorelaneError, type Failure, localError } from "./errors.js";
import { Cmd, type Frame, type Json, readFailure, textOf, wholeNumber } from "./frames.js";
import type { Tuning } from "./options.js";
import type { Outbox } from "./outbox.js";
import type { ClientEvents, Message, OutgoingMessage } from "./types.js";
import { uuidV7 } from "./uuid.js";

/** What the sender asks of its neighbours. */
export interface SenderHooks {
  /** False when there is no logged-in connection. */
  transmit(frame: Json): boolean;
  /** A fresh request id. */
  requestId(): number;
  /** The server has stored an own message. */
  stored(item: OutgoingMessage, seq: number, messageId: string, createdAtMs: number): void;
  /** The server no longer knows who we are. */
  unauthenticated(): void;
}

interface InFlight {
  id: number;
  cancel: Cancel;
}

interface Waiter {
  resolve(item: OutgoingMessage): void;
  reject(error: CorelaneError): void;
}

/** The way of own messages to the server. */
export class Sender {
  private readonly inFlight = new Map<string, InFlight>();
  private readonly attempts = new Map<string, number>();
  /** Earliest next try of single messages. */
  private readonly notBefore = new Map<string, number>();
  private readonly waiters = new Map<string, Waiter[]>();
  /** Rate limits and overload hold for the whole connection. */
  private pausedUntilMs = 0;
  private online = false;
  private wakeUp: Cancel = () => {};

  constructor(
    private readonly env: Environment,
    private readonly tuning: Tuning,
    private readonly outbox: Outbox,
    private readonly emitter: Emitter<ClientEvents>,
    private readonly hooks: SenderHooks,
  ) {}

  /** Puts a message into the outbox and sends it as soon as possible. */
  send(conversationId: string, content: string, msgType: number): OutgoingMessage {
    const { clock, random } = this.env;
    const item: OutgoingMessage = {
      msgId: uuidV7(clock.now(), random),
      conversationId,
      // Lone surrogates have no UTF-8 form; the server would refuse the frame.
      content: content.replace(/[\uD800-\uDFFF]/gu, "\uFFFD"),
      msgType,
      createdAtMs: clock.now(),
      state: "sending",
    };
    this.outbox.add(item);
    this.emitter.emit("outgoing", item);
    if (frameBytes(item) > this.tuning.sendFrameMaxBytes) {
      this.fail(item, localError("TOO_LARGE", "the message is too long", false));
    }
    this.pump();
    return this.outbox.get(item.msgId) ?? item;
  }

  /** Sends a failed message again, under its old id. */
  retry(msgId: string): boolean {
    const item = this.outbox.get(msgId);
    if (item?.state !== "failed") return false;
    const { error: _, ...rest } = item;
    const again: OutgoingMessage = { ...rest, state: "sending" };
    this.attempts.delete(msgId);
    this.outbox.update(again);
    this.emitter.emit("outgoing", again);
    this.pump();
    return true;
  }

  /** Forgets a failed message. */
  discard(msgId: string): boolean {
    if (this.outbox.get(msgId)?.state !== "failed") return false;
    this.outbox.remove(msgId);
    return true;
  }

  /** Settles once the server has stored the message, or refused it for good. */
  whenSent(msgId: string): Promise<OutgoingMessage> {
    const item = this.outbox.get(msgId);
    if (item === undefined) return Promise.reject(localError("UNKNOWN_MESSAGE", "not in the outbox", false));
    if (item.state === "sent") return Promise.resolve(item);
    if (item.error !== undefined) return Promise.reject(new CorelaneError(item.error));
    return new Promise((resolve, reject) => {
      this.waiters.set(msgId, [...(this.waiters.get(msgId) ?? []), { resolve, reject }]);
    });
  }

  up(): void {
    this.online = true;
    this.pausedUntilMs = 0;
    this.notBefore.clear();
    this.pump();
  }

  down(): void {
    this.online = false;
    this.wakeUp();
    for (const { cancel } of this.inFlight.values()) cancel();
    this.inFlight.clear();
  }

  /** Gives up all memory of the user who logged out. */
  reset(): void {
    this.down();
    this.attempts.clear();
    const waiting = [...this.waiters.values()].flat();
    this.waiters.clear();
    for (const waiter of waiting) waiter.reject(localError("LOGGED_OUT", "the user logged out", false));
  }

  /** Takes the answer to a send. */
  answered(frame: Frame): void {
    const item = this.match(frame);
    if (item === undefined) return;
    if (frame.code !== 0) {
      this.land(item.msgId);
      this.refused(item, readFailure(frame.code, frame.body["error"]));
    } else {
      const seq = wholeNumber(frame.body["seq"]);
      // Success without a place in the conversation is no answer; the timeout asks again.
      if (seq === undefined || seq < 1) {
        return this.emitter.emit("warning", { name: "MALFORMED_FRAME", detail: "acknowledgement without seq" });
      }
      this.land(item.msgId);
      const createdAtMs = wholeNumber(frame.body["created_at_ms"]) ?? this.env.clock.now();
      const messageId = textOf(frame.body["message_id"]) ?? "";
      this.sent(item, seq, messageId);
      this.hooks.stored(item, seq, messageId, createdAtMs);
    }
    this.pump();
  }

  /** An own message is being delivered: whatever its acknowledgement did, it is stored. */
  delivering(message: Message): void {
    const item = this.outbox.get(message.msgId);
    if (item === undefined || item.conversationId !== message.conversationId) return;
    this.land(item.msgId);
    if (item.state !== "sent") this.sent(item, message.seq, message.messageId);
    this.outbox.remove(item.msgId);
    // The next one of the conversation waited for this one, whose answer may never come.
    this.pump();
  }

  /** The conversation is gone: what waits for it can never be sent. */
  removed(conversationId: string): void {
    for (const item of this.outbox.of(conversationId)) if (item.state === "sent") this.outbox.remove(item.msgId);
  }

  /** Sends what may be sent: the first waiting message of every conversation. */
  pump(): void {
    this.wakeUp();
    if (!this.online) return;
    const nowMs = this.env.clock.now();
    let nextMs = Number.POSITIVE_INFINITY;
    const busy = new Set<string>();
    for (const item of this.outbox.all()) {
      // One at a time per conversation: a refused message must not be overtaken by the next.
      if (item.state !== "sending" || busy.has(item.conversationId)) continue;
      busy.add(item.conversationId);
      if (this.inFlight.has(item.msgId)) continue;
      const dueMs = Math.max(this.pausedUntilMs, this.notBefore.get(item.msgId) ?? 0);
      if (dueMs > nowMs) nextMs = Math.min(nextMs, dueMs);
      else if (!this.transmit(item)) return;
    }
    if (nextMs < Number.POSITIVE_INFINITY) this.wakeUp = this.env.clock.after(nextMs - nowMs, () => this.pump());
  }

  private transmit(item: OutgoingMessage): boolean {
    const id = this.hooks.requestId();
    const cancel = this.env.clock.after(this.tuning.answerTimeoutMs, () => this.unanswered(item.msgId));
    this.inFlight.set(item.msgId, { id, cancel });
    if (this.hooks.transmit({ ...sendFrame(item), id })) return true;
    this.land(item.msgId);
    return false;
  }

  private unanswered(msgId: string): void {
    this.inFlight.delete(msgId);
    this.later(msgId, 0);
    this.pump();
  }

  private match(frame: Frame): OutgoingMessage | undefined {
    if (frame.msgId !== undefined) return this.waitingItem(frame.msgId);
    // A refusal that could not even read the frame may lack the message's id.
    for (const [msgId, { id }] of this.inFlight) if (id === frame.id) return this.waitingItem(msgId);
    return undefined;
  }

  private waitingItem(msgId: string): OutgoingMessage | undefined {
    const item = this.outbox.get(msgId);
    return item?.state === "sending" ? item : undefined;
  }

  private land(msgId: string): void {
    this.inFlight.get(msgId)?.cancel();
    this.inFlight.delete(msgId);
  }

  private sent(item: OutgoingMessage, seq: number, messageId: string): void {
    const { error: _, ...rest } = item;
    const done: OutgoingMessage = { ...rest, state: "sent", seq, messageId };
    this.forget(item.msgId);
    this.outbox.update(done);
    this.emitter.emit("outgoing", done);
    for (const waiter of this.takeWaiters(item.msgId)) waiter.resolve(done);
  }

  private refused(item: OutgoingMessage, failure: Failure): void {
    if (failure.name === "UNAUTHENTICATED") return this.hooks.unauthenticated();
    if (!failure.temporary) return this.fail(item, new CorelaneError(failure));
    if (failure.name !== "INTERNAL") {
      const delayMs = failure.retryAfterMs > 0 ? failure.retryAfterMs : Math.max(1, this.jitterMs(item.msgId));
      this.pausedUntilMs = Math.max(this.pausedUntilMs, this.env.clock.now() + delayMs);
      return;
    }
    if ((this.attempts.get(item.msgId) ?? 0) + 1 >= this.tuning.sendAttempts) {
      return this.fail(item, new CorelaneError(failure));
    }
    this.later(item.msgId, failure.retryAfterMs);
  }

  private fail(item: OutgoingMessage, error: CorelaneError): void {
    const failed: OutgoingMessage = { ...item, state: "failed", error: error.toFailure() };
    this.forget(item.msgId);
    this.outbox.update(failed);
    this.emitter.emit("outgoing", failed);
    for (const waiter of this.takeWaiters(item.msgId)) waiter.reject(error);
  }

  private later(msgId: string, floorMs: number): void {
    const delayMs = Math.max(1, floorMs, this.jitterMs(msgId));
    this.notBefore.set(msgId, this.env.clock.now() + delayMs);
  }

  private jitterMs(msgId: string): number {
    const attempt = this.attempts.get(msgId) ?? 0;
    this.attempts.set(msgId, attempt + 1);
    return backoffMs(attempt, this.tuning.retry, this.env.random);
  }

  private forget(msgId: string): void {
    this.attempts.delete(msgId);
    this.notBefore.delete(msgId);
  }

  private takeWaiters(msgId: string): Waiter[] {
    const waiters = this.waiters.get(msgId) ?? [];
    this.waiters.delete(msgId);
    return waiters;
  }
}

function sendFrame(item: OutgoingMessage): Json {
  return {
    cmd: Cmd.send,
    msg_id: item.msgId,
    conversation_id: item.conversationId,
    payload: { content: item.content, msg_type: item.msgType },
  };
}

function frameBytes(item: OutgoingMessage): number {
  return new TextEncoder().encode(JSON.stringify(sendFrame(item))).length;
}
