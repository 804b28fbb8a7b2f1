/** What the client knows of one conversation: the server's description, the order, and a run of messages. */

import { Timeline } from "./timeline.js";
import type { ArchivedRoom, Conversation, Message } from "./types.js";

/** Where delivery starts in a conversation that was not known before. */
export type Start =
  /** Behind the newest message: what is older comes by `loadOlder`. */
  | "newest"
  /** Behind what the user has read, but at most `BACKFILL` messages back. */
  | "unread";

/** Most older messages that a conversation which appears while the client runs delivers as new. */
export const BACKFILL = 50;

/**
 * The messages kept are always one run without holes: deliveries extend it at its end, `prepend` at its
 * beginning.
 */
export class Room {
  /** Undefined while only pushes have told of the conversation. */
  info: Conversation | undefined;
  /** Whether messages exist below the kept ones; undefined until the server has been asked. */
  hasOlder: boolean | undefined;
  /** Guards of the puller. */
  pulling = false;
  pullAgain = false;
  /** Pushes were dropped before it was known where the conversation starts. */
  lagged = false;
  gapTimer: (() => void) | undefined;
  /** The running `loadOlder`, shared by all who ask meanwhile. */
  loading: Promise<void> | undefined;

  private timeline: Timeline<Message> | undefined;
  private early: Message[] = [];
  private earlySeq = Number.POSITIVE_INFINITY;
  private kept: readonly Message[] = [];
  private lowest = 1;
  /** The unread counter has taken every seq up to here into account. */
  private countedSeq = 0;
  /** Where the messages of this device ended, until they were compared with the server's. */
  private restoredSeq: number | undefined;

  constructor(
    readonly conversationId: string,
    private readonly historyLimit: number,
  ) {}

  /** The kept messages, ascending. A new array after every change. */
  get messages(): readonly Message[] {
    return this.kept;
  }

  /** Lowest seq that the kept run covers; messages below it are history. */
  get firstSeq(): number {
    return this.lowest;
  }

  /** Last contiguous seq, 0 before the room is anchored. */
  get lastSeq(): number {
    return this.timeline?.last ?? 0;
  }

  get targetSeq(): number {
    return this.timeline?.target ?? 0;
  }

  /** Whether messages are known to exist that were not delivered. */
  get behind(): boolean {
    return this.timeline?.behind ?? false;
  }

  get anchored(): boolean {
    return this.timeline !== undefined;
  }

  /** Whether the end of the messages was compared with the server's, and so may be gone on from. */
  get confirmed(): boolean {
    return this.timeline !== undefined && this.restoredSeq === undefined;
  }

  /** Starts from what was kept on the device. */
  restore(kept: ArchivedRoom): void {
    this.info = kept.info;
    this.timeline = new Timeline<Message>(kept.lastSeq);
    this.kept = kept.messages;
    this.lowest = kept.messages[0]?.seq ?? kept.lastSeq + 1;
    this.hasOlder = this.lowest === 1 ? false : undefined;
    this.countedSeq = Math.max(kept.info.maxSeq, kept.lastSeq);
    this.restoredSeq = kept.lastSeq;
  }

  /** Takes the server's description. The answer is what it makes deliverable. */
  learn(info: Conversation, start: Start, ownId: string): Message[] {
    if (this.restoredSeq !== undefined && !this.agrees(info, this.restoredSeq)) this.reset();
    this.restoredSeq = undefined;
    const old = this.info;
    const released = this.timeline === undefined ? this.anchor(info, start) : [];
    this.timeline?.known(info.maxSeq);
    const readSeq = Math.max(info.readSeq, old?.readSeq ?? 0);
    const newer = this.kept.filter((m) => m.seq > info.maxSeq && m.seq > readSeq && m.senderId !== ownId).length;
    const lastMessage = (old?.lastMessage?.seq ?? 0) > (info.lastMessage?.seq ?? 0) ? old!.lastMessage : info.lastMessage;
    this.info = {
      ...info,
      readSeq,
      lastMessage,
      maxSeq: Math.max(info.maxSeq, this.targetSeq),
      lastActiveAtMs: Math.max(info.lastActiveAtMs, old?.lastActiveAtMs ?? 0),
      // A read mark that is still on its way makes the server's counter stale.
      unread: Math.min(info.unread, Math.max(0, info.maxSeq - readSeq)) + newer,
    };
    this.countedSeq = Math.max(info.maxSeq, this.lastSeq);
    return released;
  }

  /** Takes one message; the answer is what may be delivered now. */
  offer(message: Message): Message[] {
    if (this.timeline !== undefined) return this.timeline.offer(message);
    // Not known yet where the conversation starts: the sync that is under way will tell.
    if (this.early.length < BACKFILL) this.early.push(message);
    else this.lagged = true;
    this.earlySeq = Math.min(this.earlySeq, message.seq);
    return [];
  }

  /** Pushes from `fromSeq` on were dropped before the room was anchored. */
  lag(fromSeq: number): void {
    this.lagged = true;
    if (fromSeq > 0) this.earlySeq = Math.min(this.earlySeq, fromSeq);
  }

  /** Takes a page of a forward pull. */
  page(cursorSeq: number, items: readonly Message[], nextCursorSeq: number, hasMore: boolean): Message[] {
    if (this.timeline === undefined) return [];
    const released = this.timeline.page(cursorSeq, items, nextCursorSeq);
    if (hasMore) this.timeline.known(this.timeline.last + 1);
    return released;
  }

  /** Notes a delivered message: it joins the kept run and the description. */
  append(message: Message, ownId: string): void {
    const kept = [...this.kept, message];
    if (kept.length > this.historyLimit) {
      kept.splice(0, kept.length - Math.floor(this.historyLimit * 0.8));
      this.lowest = kept[0]!.seq;
      this.hasOlder = true;
    }
    this.kept = kept;
    if (this.info === undefined) return;
    const { info } = this;
    const unseen = message.seq > this.countedSeq && message.seq > info.readSeq;
    // Who writes has read everything before, on the server as here.
    const own = message.senderId === ownId;
    this.countedSeq = Math.max(this.countedSeq, message.seq);
    this.info = {
      ...info,
      maxSeq: Math.max(info.maxSeq, message.seq),
      readSeq: unseen && own ? message.seq : info.readSeq,
      unread: unseen ? (own ? 0 : info.unread + 1) : info.unread,
      lastMessage: message.seq >= (info.lastMessage?.seq ?? 0) ? message : info.lastMessage,
      lastActiveAtMs: Math.max(info.lastActiveAtMs, message.createdAtMs),
    };
  }

  /** Puts a page of history in front. False when the run has changed since it was asked for. */
  prepend(belowSeq: number, items: readonly Message[], lowestSeq: number, hasMore: boolean): boolean {
    if (belowSeq !== this.lowest) return false;
    const older = items.filter((item) => item.seq < belowSeq);
    this.kept = [...older, ...this.kept];
    const lowest = older.length === 0 ? belowSeq : Math.min(lowestSeq > 0 ? lowestSeq : belowSeq, older[0]!.seq);
    this.hasOlder = hasMore && older.length > 0 && lowest > 1;
    this.lowest = lowest;
    return true;
  }

  /** Notes that the user has read up to `seq`. False when that was known. */
  read(seq: number, ownId: string): boolean {
    if (this.info === undefined || seq <= this.info.readSeq) return false;
    const unread = this.kept.filter((m) => m.seq > seq && m.senderId !== ownId).length;
    this.countedSeq = this.lastSeq;
    this.info = { ...this.info, readSeq: seq, unread };
    return true;
  }

  /** Leaves out what lies further back than `limit` messages. True when something was skipped. */
  skipAhead(limit: number, resumeBehind: number): boolean {
    const { timeline } = this;
    if (timeline === undefined || timeline.target - timeline.last <= limit) return false;
    timeline.jump(Math.max(timeline.last, timeline.target - resumeBehind));
    this.kept = [];
    this.lowest = timeline.last + 1;
    this.hasOlder = undefined;
    return true;
  }

  /** Changes the member count by what an event told. */
  members(change: number): void {
    if (this.info === undefined) return;
    this.info = { ...this.info, memberCount: Math.max(0, this.info.memberCount + change) };
  }

  /** A server that was set up anew, or restored from a backup, counts from a lower seq. */
  private agrees(info: Conversation, restoredSeq: number): boolean {
    // Not `lastSeq`: an acknowledgement or a push may be ahead of a list that was read before it.
    if (info.maxSeq < restoredSeq) return false;
    const { lastMessage } = info;
    const same = lastMessage === null ? undefined : this.kept.find((message) => message.seq === lastMessage.seq);
    return same === undefined || same.messageId === lastMessage?.messageId;
  }

  private reset(): void {
    this.info = undefined;
    this.timeline = undefined;
    this.kept = [];
    this.countedSeq = 0;
  }

  private anchor(info: Conversation, start: Start): Message[] {
    const { early } = this;
    this.early = [];
    const wanted = start === "newest" ? info.maxSeq : Math.max(info.readSeq, info.maxSeq - BACKFILL);
    // What was pushed before the description came is new by definition.
    const first = Math.min(wanted, info.maxSeq, this.earlySeq - 1);
    this.timeline = new Timeline<Message>(first);
    this.lowest = first + 1;
    this.hasOlder = first === 0 ? false : undefined;
    return early.flatMap((message) => this.timeline!.offer(message));
  }
}
