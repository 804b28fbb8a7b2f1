/** Fills holes and catches up: pulls from the last contiguous seq until nothing is missing. */

import { backoffMs } from "./backoff.js";
import type { Calls } from "./calls.js";
import type { Emitter } from "./emitter.js";
import type { Environment } from "./env.js";
import { asCorelaneError } from "./errors.js";
import { Cmd, readPage } from "./frames.js";
import type { Tuning } from "./options.js";
import type { Room } from "./room.js";
import type { Rooms } from "./rooms.js";
import type { ClientEvents } from "./types.js";

/** Refusals which mean that the conversation is no longer the user's. */
const GONE = new Set(["NOT_A_MEMBER", "CONVERSATION_NOT_FOUND"]);

/** One pull per conversation at a time, a few conversations at a time. */
export class Puller {
  private readonly queue: Room[] = [];
  private running = 0;

  constructor(
    private readonly env: Environment,
    private readonly tuning: Tuning,
    private readonly calls: Calls,
    private readonly rooms: Rooms,
    private readonly emitter: Emitter<ClientEvents>,
  ) {}

  /** A hole showed. It often closes by itself: pushes of one tick may overtake each other. */
  soon(room: Room): void {
    if (room.gapTimer !== undefined || room.pulling) return;
    room.gapTimer = this.env.clock.after(this.tuning.gapGraceMs, () => {
      room.gapTimer = undefined;
      if (room.behind) this.now(room);
    });
  }

  /** Pulls at least once, whether something is known to be missing or not. */
  now(room: Room): void {
    room.gapTimer?.();
    room.gapTimer = undefined;
    if (room.pulling) {
      room.pullAgain = true;
      return;
    }
    room.pulling = true;
    this.queue.push(room);
    this.next();
  }

  private next(): void {
    if (this.running >= this.tuning.pullConcurrency) return;
    const room = this.queue.shift();
    if (room === undefined) return;
    this.running += 1;
    void this.fill(room).then((filled) => {
      room.pulling = false;
      this.running -= 1;
      // A hole that showed between the last look and this line found the puller busy.
      if (filled && (room.behind || room.pullAgain)) this.now(room);
      this.next();
    });
  }

  /** False when it gave up. */
  private async fill(room: Room): Promise<boolean> {
    let fruitless = 0;
    do {
      room.pullAgain = false;
      const before = room.lastSeq;
      if (!(await this.pull(room))) return false;
      if (this.rooms.get(room.conversationId) !== room) return false;
      fruitless = room.lastSeq > before ? 0 : fruitless + 1;
      // The seq that was announced is not readable yet: ask again, ever more slowly.
      if (room.behind && fruitless > 0) await this.pause(fruitless);
    } while (room.behind || room.pullAgain);
    return true;
  }

  /** One page. False when there is no point in asking again. */
  private async pull(room: Room): Promise<boolean> {
    const { conversationId } = room;
    const cursorSeq = room.lastSeq;
    try {
      const frame = {
        cmd: Cmd.pull,
        conversation_id: conversationId,
        cursor_seq: cursorSeq,
        limit: this.tuning.pullLimit,
        direction: "forward",
      };
      const answer = await this.calls.call(frame, { repeat: false });
      const page = readPage(answer.body, conversationId, (seq) => seq > cursorSeq);
      if (page === null || page.malformed > 0) {
        this.emitter.emit("warning", { name: "MALFORMED_FRAME", detail: `pull of ${conversationId}` });
      }
      if (page !== null && this.rooms.get(conversationId) === room) {
        this.rooms.page(room, cursorSeq, page.items, page.nextCursorSeq, page.hasMore && page.items.length > 0);
      }
      return true;
    } catch (thrown) {
      return this.refused(room, thrown);
    }
  }

  private refused(room: Room, thrown: unknown): boolean {
    const error = asCorelaneError(thrown);
    if (GONE.has(error.name)) {
      this.rooms.remove(room.conversationId);
      return false;
    }
    // Without a connection the sync after the next login starts the pull anew.
    if (error.name === "NOT_CONNECTED" || error.name === "CONNECTION_LOST") return false;
    this.emitter.emit("warning", { name: "PULL_FAILED", detail: `${room.conversationId}: ${error.message}` });
    return error.temporary;
  }

  private pause(fruitless: number): Promise<void> {
    const delayMs = Math.max(this.tuning.gapGraceMs, backoffMs(fruitless, this.tuning.retry, this.env.random));
    return new Promise((resolve) => void this.env.clock.after(delayMs, resolve));
  }
}
