/** Requests and their answers, matched by `id`; waiting for a connection and retries included. */

import { backoffMs } from "./backoff.js";
import type { Cancel, Environment } from "./env.js";
import { CorelaneError, localError } from "./errors.js";
import { type Frame, type Json, readFailure } from "./frames.js";
import type { Tuning } from "./options.js";

/** Highest request id; ids are 32 bits on the wire. */
const ID_MAX = 0xffff_ffff;

interface Pending {
  settle(outcome: Frame | CorelaneError): void;
}

/** How one call behaves. */
export interface CallOptions {
  /**
   * Whether to ask again when the outcome is unknown (default). Wrong for requests that must not run twice,
   * and needless for those whose caller starts over by itself.
   */
  repeat?: boolean;
  /** Bound on the whole call. */
  timeoutMs?: number;
}

/** The table of open requests of one client. */
export class Calls {
  private nextId = 0;
  private readonly pending = new Map<number, Pending>();
  private readonly waiters = new Set<() => void>();
  private online = false;

  /** `send` answers false when there is no logged-in connection. */
  constructor(
    private readonly env: Environment,
    private readonly tuning: Tuning,
    private readonly send: (frame: Json) => boolean,
  ) {}

  /** A fresh request id. */
  id(): number {
    this.nextId = this.nextId >= ID_MAX ? 1 : this.nextId + 1;
    return this.nextId;
  }

  /** There is a logged-in connection: calls that waited for one go on. */
  up(): void {
    this.online = true;
    for (const wake of [...this.waiters]) wake();
  }

  /** The connection is gone, and with it every answer that was still to come. */
  down(): void {
    this.online = false;
    const lost = [...this.pending.values()];
    this.pending.clear();
    for (const one of lost) one.settle(localError("CONNECTION_LOST", "the connection was lost before the answer", true));
  }

  /** Takes an answer. False when no request waits for it. */
  answered(frame: Frame): boolean {
    if (frame.id === undefined) return false;
    const one = this.pending.get(frame.id);
    if (one === undefined) return false;
    this.pending.delete(frame.id);
    one.settle(frame);
    return true;
  }

  /**
   * Sends a request and waits for its answer. Waits for a connection when there is none; repeats after
   * temporary refusals, not before `retry_after_ms`. Throws a CorelaneError when it is refused for good
   * or the time is up.
   */
  async call(frame: Json, options: CallOptions = {}): Promise<Frame> {
    const { clock, random } = this.env;
    const deadlineMs = clock.now() + (options.timeoutMs ?? this.tuning.callTimeoutMs);
    for (let attempt = 0; ; attempt++) {
      await this.connected(deadlineMs);
      const outcome = await this.once(frame, deadlineMs);
      if (!(outcome instanceof CorelaneError)) return outcome;
      if (!mayRepeat(outcome, options.repeat ?? true)) throw outcome;
      const delayMs = Math.max(outcome.retryAfterMs, backoffMs(attempt, this.tuning.retry, random));
      if (clock.now() + delayMs >= deadlineMs) throw outcome;
      // After a lost connection the next one is the signal to go on, not the clock.
      if (outcome.name !== "CONNECTION_LOST" || this.online) await this.pause(delayMs);
    }
  }

  private once(frame: Json, deadlineMs: number): Promise<Frame | CorelaneError> {
    return new Promise((resolve) => {
      const { clock } = this.env;
      const id = this.id();
      const limitMs = Math.max(1, Math.min(this.tuning.answerTimeoutMs, deadlineMs - clock.now()));
      const cancel = clock.after(limitMs, () => {
        this.pending.delete(id);
        resolve(localError("TIMEOUT", "the server did not answer in time", true));
      });
      this.pending.set(id, {
        settle: (outcome) => {
          cancel();
          resolve(outcome instanceof CorelaneError ? outcome : refusalOr(outcome));
        },
      });
      if (this.send({ ...frame, id })) return;
      this.pending.delete(id);
      cancel();
      resolve(localError("CONNECTION_LOST", "not connected", true));
    });
  }

  private connected(deadlineMs: number): Promise<void> {
    if (this.online) return Promise.resolve();
    return new Promise((resolve, reject) => {
      let cancel: Cancel = () => {};
      const wake = (): void => {
        this.waiters.delete(wake);
        cancel();
        resolve();
      };
      this.waiters.add(wake);
      cancel = this.env.clock.after(Math.max(0, deadlineMs - this.env.clock.now()), () => {
        this.waiters.delete(wake);
        reject(localError("NOT_CONNECTED", "there is no connection to the server", true));
      });
    });
  }

  private pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.env.clock.after(delayMs, resolve));
  }
}

function refusalOr(frame: Frame): Frame | CorelaneError {
  return frame.code === 0 ? frame : new CorelaneError(readFailure(frame.code, frame.body["error"]));
}

/** A refusal had no effect, so everything temporary may be repeated; an unknown outcome only on request. */
function mayRepeat(error: CorelaneError, repeat: boolean): boolean {
  if (!error.temporary) return false;
  const refused = error.name === "RATE_LIMITED" || error.name === "BUSY";
  return refused || repeat;
}
