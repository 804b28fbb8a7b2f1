/** Who is there: asked once, or watched. */

import type { Calls } from "./calls.js";
import type { Cancel, Environment } from "./env.js";
import { asCorelaneError } from "./errors.js";
import { Cmd, type Frame, readList, readPresence } from "./frames.js";
import type { UserPresence } from "./types.js";

/** A subscription holds for an hour at the server; it is asked for again long before. */
const REFRESH_MS = 10 * 60_000;

/** Told how things stand, and again whenever that changes. */
export type PresenceListener = (presence: UserPresence) => void;

interface Watch {
  readonly names: ReadonlySet<string>;
  readonly listener: PresenceListener;
}

/** What one client knows of others' presence. */
export class Presence {
  private readonly watches = new Set<Watch>();
  private online = false;
  private cancel: Cancel = () => {};
  /** A list is on its way: the next one waits, so that no older one comes after it. */
  private asking = false;
  private again = false;
  /** The server has a list of ours. */
  private subscribed = false;

  constructor(
    private readonly env: Environment,
    private readonly calls: Calls,
    private readonly failed: (detail: string) => void,
  ) {}

  /** How things stand with these users; names of nobody are left out. */
  async query(names: readonly string[]): Promise<UserPresence[]> {
    return this.ask(names, false);
  }

  /** Tells the listener of these users until the answer is called. */
  watch(names: readonly string[], listener: PresenceListener): () => void {
    const watch = { names: new Set(names), listener };
    this.watches.add(watch);
    this.renew();
    return () => {
      if (this.watches.delete(watch)) this.renew();
    };
  }

  up(): void {
    this.online = true;
    this.subscribed = false;
    this.renew();
  }

  down(): void {
    this.online = false;
    this.cancel();
  }

  /** Forgets everybody. */
  reset(): void {
    this.cancel();
    this.watches.clear();
  }

  /** Takes a push. False when it cannot be read. */
  changed(frame: Frame): boolean {
    const presence = readPresence(frame.body["payload"]);
    if (presence === null) return false;
    this.tell(presence);
    return true;
  }

  private async ask(names: readonly string[], subscribe: boolean): Promise<UserPresence[]> {
    // A list is asked for again by whoever comes back.
    const options = { repeat: !subscribe };
    const answer = await this.calls.call({ cmd: Cmd.presence, payload: { users: names, subscribe } }, options);
    return readList(answer.body["payload"], readPresence);
  }

  /** Sends the whole list, which replaces the server's. */
  private renew(): void {
    this.cancel();
    this.again = this.asking;
    if (this.asking || !this.online) return;
    const names = [...new Set([...this.watches].flatMap((watch) => [...watch.names]))];
    if (names.length === 0 && !this.subscribed) return;
    this.subscribed = names.length > 0;
    this.asking = true;
    this.ask(names, true)
      .then((all) => all.forEach((one) => this.tell(one)))
      .catch((thrown: unknown) => {
        const { name, message } = asCorelaneError(thrown);
        // A lost connection is not a failure: the next one begins with the list.
        if (this.online) this.failed(`${name}: ${message}`);
      })
      .finally(() => {
        this.asking = false;
        if (this.again) this.renew();
      });
    if (names.length > 0) this.cancel = this.env.clock.after(REFRESH_MS, () => this.renew());
  }

  private tell(presence: UserPresence): void {
    for (const watch of [...this.watches]) if (watch.names.has(presence.username)) watch.listener(presence);
  }
}
