/** Keeps the list of conversations: whole after every login, by single look-ups in between. */

import { backoffMs } from "./backoff.js";
import type { Calls } from "./calls.js";
import type { Emitter } from "./emitter.js";
import type { Cancel, Environment } from "./env.js";
import { asCorelaneError } from "./errors.js";
import { Cmd, readConversation, readList, textOf } from "./frames.js";
import type { Tuning } from "./options.js";
import type { Rooms } from "./rooms.js";
import type { ClientEvents } from "./types.js";

/**
 * Look-ups wait this long for others, and for the answer of an own create or join: the event about it may
 * arrive first.
 */
const GATHER_MS = 50;

/** One sync at a time; look-ups wait for a running one, which may answer them. */
export class Syncer {
  /** Conversations heard of during a full sync, which a missing page entry must not remove. */
  private seen: Set<string> | undefined;
  private readonly wanted = new Set<string>();
  private running = false;
  /** Rises with every login; a sync of an older connection stops at its next step. */
  private epoch = 0;
  private complete = false;
  private timer: Cancel = () => {};

  constructor(
    private readonly env: Environment,
    private readonly tuning: Tuning,
    private readonly calls: Calls,
    private readonly rooms: Rooms,
    private readonly emitter: Emitter<ClientEvents>,
  ) {}

  /** Whether the list has been complete since the application started. */
  get synced(): boolean {
    return this.complete;
  }

  /** Logged in: reads all pages. */
  up(): void {
    this.epoch += 1;
    this.running = true;
    void this.full(this.epoch);
  }

  /** Logged out of the connection. */
  down(): void {
    this.timer();
    this.epoch += 1;
    this.running = false;
    this.seen = undefined;
  }

  /** Another user will log in: nothing known so far counts. */
  reset(): void {
    this.down();
    this.complete = false;
    this.wanted.clear();
  }

  /** Something was heard of the conversation. */
  touched(conversationId: string): void {
    this.seen?.add(conversationId);
  }

  /** Asks the server about a conversation that only an event or a push has named. */
  lookUp(conversationId: string): void {
    this.wanted.add(conversationId);
    if (this.running) return;
    this.running = true;
    const { epoch } = this;
    this.timer = this.env.clock.after(GATHER_MS, () => void this.partial(epoch));
  }

  private async full(epoch: number): Promise<void> {
    const seen = new Set<string>();
    this.seen = seen;
    const whole = await this.pages(epoch, seen, () => true);
    if (epoch !== this.epoch) return;
    this.seen = undefined;
    if (whole) {
      for (const room of this.rooms.all()) {
        if (room.info !== undefined && !seen.has(room.conversationId)) this.rooms.remove(room.conversationId);
      }
      this.complete = true;
      this.emitter.emit("synced", { conversations: this.rooms.list().length });
    }
    await this.partial(epoch);
  }

  /** Reads pages until everything wanted was found. New conversations are the most recently active ones. */
  private async partial(epoch: number): Promise<void> {
    for (const known of [...this.wanted]) if (this.rooms.get(known)?.info !== undefined) this.wanted.delete(known);
    if (this.wanted.size > 0) {
      const asked = [...this.wanted];
      await this.pages(epoch, new Set(), () => this.wanted.size > 0);
      if (epoch !== this.epoch) return;
      for (const conversationId of asked) this.giveUp(conversationId);
    }
    this.running = false;
    // What was asked for while the last page was on its way.
    if (this.wanted.size > 0) this.lookUp([...this.wanted][0]!);
  }

  /** Not on the list: the user is no member (any more). */
  private giveUp(conversationId: string): void {
    if (!this.wanted.delete(conversationId)) return;
    if (this.rooms.get(conversationId)?.info === undefined) this.rooms.remove(conversationId);
  }

  /** True when the last page was reached. */
  private async pages(epoch: number, seen: Set<string>, goOn: () => boolean): Promise<boolean> {
    let cursor = "";
    for (let failures = 0; epoch === this.epoch && goOn(); ) {
      try {
        const answer = await this.calls.call({ cmd: Cmd.sync, cursor, limit: this.tuning.syncLimit }, { repeat: false });
        if (epoch !== this.epoch) return false;
        failures = 0;
        const next = textOf(answer.body["next_cursor"]) ?? "";
        this.take(answer.body["payload"], seen);
        // A cursor that stands still would loop for ever.
        if (answer.body["has_more"] !== true || next === cursor) return true;
        cursor = next;
      } catch (thrown) {
        if (epoch !== this.epoch) return false;
        const error = asCorelaneError(thrown);
        this.emitter.emit("warning", { name: "SYNC_FAILED", detail: error.message });
        if (!error.temporary) return false;
        await this.pause(failures++);
      }
    }
    return false;
  }

  private take(payload: unknown, seen: Set<string>): void {
    // The first full sync starts at the newest messages; whatever appears later is new to the user.
    const start = this.complete ? "unread" : "newest";
    for (const info of readList(payload, readConversation)) {
      seen.add(info.conversationId);
      this.wanted.delete(info.conversationId);
      this.rooms.learn(info, start);
    }
  }

  private pause(attempt: number): Promise<void> {
    const delayMs = backoffMs(attempt, this.tuning.retry, this.env.random) + 1;
    return new Promise((resolve) => void this.env.clock.after(delayMs, resolve));
  }
}
