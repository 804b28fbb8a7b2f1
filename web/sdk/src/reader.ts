/** Tells the server what the user has read, sparingly: only the highest seq, and not for every message. */

import type { Calls } from "./calls.js";
import type { Emitter } from "./emitter.js";
import type { Cancel, Environment } from "./env.js";
import { asCorelaneError } from "./errors.js";
import { Cmd } from "./frames.js";
import type { Tuning } from "./options.js";
import type { ClientEvents } from "./types.js";

/** Read marks on their way. */
export class Reader {
  private readonly marks = new Map<string, number>();
  private timer: Cancel | undefined;
  private online = false;
  private running = false;

  constructor(
    private readonly env: Environment,
    private readonly tuning: Tuning,
    private readonly calls: Calls,
    private readonly emitter: Emitter<ClientEvents>,
  ) {}

  /** Remembers to report that the conversation was read up to `seq`. */
  mark(conversationId: string, seq: number): void {
    this.marks.set(conversationId, Math.max(seq, this.marks.get(conversationId) ?? 0));
    this.schedule();
  }

  up(): void {
    this.online = true;
    this.schedule();
  }

  down(): void {
    this.online = false;
    this.timer?.();
    this.timer = undefined;
  }

  reset(): void {
    this.down();
    this.marks.clear();
  }

  private schedule(): void {
    if (!this.online || this.running || this.timer !== undefined || this.marks.size === 0) return;
    this.timer = this.env.clock.after(this.tuning.readDelayMs, () => {
      this.timer = undefined;
      void this.flush();
    });
  }

  private async flush(): Promise<void> {
    this.running = true;
    for (const [conversationId, seq] of [...this.marks]) {
      if (!(await this.report(conversationId, seq))) break;
      if (this.marks.get(conversationId) === seq) this.marks.delete(conversationId);
    }
    this.running = false;
    this.schedule();
  }

  /** False when the rest should wait. */
  private async report(conversationId: string, seq: number): Promise<boolean> {
    try {
      await this.calls.call({ cmd: Cmd.read, conversation_id: conversationId, read_seq: seq });
      return true;
    } catch (thrown) {
      const error = asCorelaneError(thrown);
      if (error.temporary) return false;
      // Left the conversation meanwhile, most likely; there is nothing to mark any more.
      this.emitter.emit("warning", { name: "READ_FAILED", detail: `${conversationId}: ${error.message}` });
      return true;
    }
  }
}
