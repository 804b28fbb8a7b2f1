/** All conversations of the user, and the one place where messages reach the application. */

import type { Emitter } from "./emitter.js";
import type { ResumePoint } from "./link.js";
import { Room, type Start } from "./room.js";
import type { ArchivedRoom, ClientEvents, Conversation, Message } from "./types.js";

/** Most conversations a login may name. */
const RESUME_POINTS_MAX = 100;

/** What the rooms ask of their neighbours. */
export interface RoomsHooks {
  /** The user's own id, empty while unknown. */
  ownId(): string;
  /** A message is about to be delivered. */
  delivering(message: Message): void;
  /** The room has a hole or a target ahead. */
  behind(room: Room): void;
  /** The server dropped pushes of the room: what is missing is not known, only that a pull brings it. */
  lagged(room: Room): void;
  /** Messages came for a conversation that nobody has described yet. */
  unknown(conversationId: string): void;
}

/** Conversations by id. */
export class Rooms {
  private readonly rooms = new Map<string, Room>();

  constructor(
    private readonly emitter: Emitter<ClientEvents>,
    private readonly hooks: RoomsHooks,
    private readonly limits: { historyLimit: number; catchUpLimit: number; pullLimit: number },
  ) {}

  get(conversationId: string): Room | undefined {
    return this.rooms.get(conversationId);
  }

  all(): Room[] {
    return [...this.rooms.values()];
  }

  /** The described conversations, most recently active first. */
  list(): Conversation[] {
    const infos = this.all().map((room) => room.info).filter((info) => info !== undefined);
    return infos.sort(
      (a, b) => b.lastActiveAtMs - a.lastActiveAtMs || (a.conversationId < b.conversationId ? -1 : 1),
    );
  }

  /** Where the most recently active conversations end here; the server takes so many. */
  resumePoints(): ResumePoint[] {
    const points: ResumePoint[] = [];
    for (const { conversationId } of this.list()) {
      const room = this.rooms.get(conversationId);
      if (room?.confirmed === true) points.push({ conversation_id: conversationId, seq: room.lastSeq });
      if (points.length === RESUME_POINTS_MAX) break;
    }
    return points;
  }

  /** Takes what was kept on the device, except where the server has already spoken. */
  restore(kept: readonly ArchivedRoom[]): void {
    this.emitter.batch(() => {
      for (const one of kept) {
        if (this.rooms.has(one.info.conversationId)) continue;
        const room = this.open(one.info.conversationId);
        room.restore(one);
        this.changed(room);
      }
    });
  }

  /** Takes a description from the server. */
  learn(info: Conversation, start: Start): Room {
    const room = this.open(info.conversationId);
    const { messages } = room;
    const released = room.learn(info, start, this.hooks.ownId());
    if (messages.length > 0 && room.messages.length === 0) {
      this.emitter.emit("history", { conversationId: room.conversationId });
    }
    if (room.skipAhead(this.limits.catchUpLimit, this.limits.pullLimit)) {
      this.emitter.emit("history", { conversationId: room.conversationId });
    }
    this.deliver(room, released);
    this.changed(room);
    if (room.lagged) {
      room.lagged = false;
      this.hooks.lagged(room);
    } else if (room.behind) this.hooks.behind(room);
    return room;
  }

  /** The server dropped pushes from `fromSeq` on. */
  lagged(conversationId: string, fromSeq: number): void {
    const room = this.open(conversationId);
    if (room.anchored) return this.hooks.lagged(room);
    room.lag(fromSeq);
    this.hooks.unknown(conversationId);
  }

  /** Takes one stored message, pushed or acknowledged. */
  push(message: Message): Room {
    const room = this.open(message.conversationId);
    this.deliver(room, room.offer(message));
    if (!room.anchored) this.hooks.unknown(message.conversationId);
    else if (room.behind) this.hooks.behind(room);
    return room;
  }

  /** Takes a page of a forward pull. */
  page(room: Room, cursorSeq: number, items: readonly Message[], nextCursorSeq: number, hasMore: boolean): void {
    this.deliver(room, room.page(cursorSeq, items, nextCursorSeq, hasMore));
  }

  /** The user is no member any more, or the conversation is gone. */
  remove(conversationId: string): void {
    const room = this.rooms.get(conversationId);
    if (room === undefined) return;
    room.gapTimer?.();
    this.rooms.delete(conversationId);
    if (room.info !== undefined) this.emitter.emit("conversation", { conversationId, removed: true });
  }

  clear(): void {
    for (const room of this.all()) this.remove(room.conversationId);
  }

  /** Tells the application that the description changed. */
  changed(room: Room): void {
    if (room.info === undefined) return;
    this.emitter.emit("conversation", { conversationId: room.conversationId, removed: false });
  }

  private open(conversationId: string): Room {
    let room = this.rooms.get(conversationId);
    if (room === undefined) {
      room = new Room(conversationId, this.limits.historyLimit);
      this.rooms.set(conversationId, room);
    }
    return room;
  }

  private deliver(room: Room, released: readonly Message[]): void {
    if (released.length === 0) return;
    this.emitter.batch(() => {
      for (const message of released) {
        room.append(message, this.hooks.ownId());
        this.hooks.delivering(message);
        this.emitter.emit("message", message);
      }
      this.changed(room);
    });
  }
}
