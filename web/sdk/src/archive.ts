/** Keeps the list and the newest messages on the device, so there is something to show before the server answers. */

import type { Cancel, Environment } from "./env.js";
import { isObject, wholeNumber } from "./frames.js";
import type { Room } from "./room.js";
import type { Rooms } from "./rooms.js";
import type { ArchivedRoom, Conversation, Message } from "./types.js";

/** Messages kept per conversation. */
export const ARCHIVED_MESSAGES = 100;

/** Changes are gathered this long before they are written. */
const WRITE_DELAY_MS = 250;

/** A store that does not answer must not keep the client from connecting. */
const LOAD_LIMIT_MS = 2_000;

/** Writes what changed, and reads it back at the start. */
export class Archive {
  private userId: string | undefined;
  private readonly dirty = new Set<string>();
  private timer: Cancel | undefined;

  constructor(
    private readonly env: Environment,
    private readonly rooms: Rooms,
    private readonly trouble: (detail: string) => void,
  ) {}

  /**
   * Turns to a user, and hands over what was kept for them. Never fails, and settles in limited time: what
   * comes later is handed over then.
   */
  async attach(userId: string, take: (kept: ArchivedRoom[]) => void): Promise<void> {
    this.detach();
    this.userId = userId;
    if (this.env.archive === undefined) return;
    let cancel: Cancel = () => {};
    const limit = new Promise<void>((resolve) => {
      cancel = this.env.clock.after(LOAD_LIMIT_MS, resolve);
    });
    await Promise.race([this.load(userId, take), limit]);
    cancel();
  }

  private async load(userId: string, take: (kept: ArchivedRoom[]) => void): Promise<void> {
    try {
      const raw = (await this.env.archive?.load(userId)) ?? [];
      if (this.userId === userId) take(raw.map(readArchived).filter((room) => room !== null));
    } catch (thrown) {
      this.trouble(`the stored conversations could not be read: ${String(thrown)}`);
    }
  }

  /** A conversation changed, or is gone. */
  touch(conversationId: string): void {
    if (this.userId === undefined || this.env.archive === undefined) return;
    this.dirty.add(conversationId);
    this.timer ??= this.env.clock.after(WRITE_DELAY_MS, () => void this.flush());
  }

  /** Forgets the user's conversations. */
  clear(): void {
    const { userId } = this;
    if (userId !== undefined) void this.attempt(() => this.env.archive?.clear(userId));
  }

  /** Turns away from the user. What is stored stays there. */
  detach(): void {
    this.timer?.();
    this.timer = undefined;
    this.dirty.clear();
    this.userId = undefined;
  }

  private async flush(): Promise<void> {
    this.timer = undefined;
    const { userId } = this;
    const ids = [...this.dirty];
    this.dirty.clear();
    if (userId === undefined) return;
    const rooms = ids.map((id) => this.rooms.get(id)).filter((room) => room !== undefined);
    const kept = rooms.map(archived).filter((room) => room !== null);
    const gone = ids.filter((id) => this.rooms.get(id)?.info === undefined);
    await this.attempt(async () => {
      if (kept.length > 0) await this.env.archive?.put(userId, kept);
      if (gone.length > 0) await this.env.archive?.remove(userId, gone);
    });
  }

  private async attempt(work: () => Promise<void> | undefined): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      this.trouble(`conversations could not be stored: ${String(thrown)}`);
    }
  }
}

function archived(room: Room): ArchivedRoom | null {
  if (room.info === undefined || !room.anchored) return null;
  return { info: room.info, lastSeq: room.lastSeq, messages: room.messages.slice(-ARCHIVED_MESSAGES) };
}

/** What lies on a device may be of another version, or damaged. */
function readArchived(raw: unknown): ArchivedRoom | null {
  if (!isObject(raw) || !isObject(raw["info"]) || !Array.isArray(raw["messages"])) return null;
  const lastSeq = wholeNumber(raw["lastSeq"]);
  const info = raw["info"] as Partial<Conversation>;
  const sound =
    lastSeq !== undefined &&
    typeof info.conversationId === "string" &&
    typeof info.name === "string" &&
    [info.maxSeq, info.readSeq, info.unread, info.lastActiveAtMs].every((n) => wholeNumber(n) !== undefined) &&
    raw["messages"].every((message, i, all) => isMessage(message) && message.seq <= lastSeq && rises(all[i - 1], message));
  return sound ? (raw as unknown as ArchivedRoom) : null;
}

function isMessage(raw: unknown): raw is Message {
  return isObject(raw) && wholeNumber(raw["seq"]) !== undefined && typeof raw["content"] === "string";
}

function rises(previous: Message | undefined, message: Message): boolean {
  return previous === undefined || previous.seq < message.seq;
}
