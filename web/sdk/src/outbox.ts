/**
 * Own messages until the server has them. The list is written to storage before anything is sent, so a
 * message outlives a reload; its id never changes, so however often it is sent it has one effect.
 */

import type { KeyValueStore } from "./env.js";
import type { Failure } from "./errors.js";
import { isObject, textOf, wholeNumber } from "./frames.js";
import type { OutgoingMessage } from "./types.js";

/** Ordered by the time of `send`. */
export class Outbox {
  private items: OutgoingMessage[] = [];
  private key: string | undefined;

  /** `trouble` hears of storage that fails (full, or forbidden); the outbox then lives in memory only. */
  constructor(
    private readonly storage: KeyValueStore,
    private readonly trouble: (detail: string) => void,
  ) {}

  /** Loads what `userId` left behind; messages already added are kept behind it. */
  attach(userId: string): void {
    const key = `outbox.${userId}`;
    if (this.key === key) return;
    // Another user's messages stay in their own place and are not sent under this name.
    const added = this.key === undefined ? this.items : [];
    this.key = key;
    const stored = this.load(key).filter((item) => !added.some((other) => other.msgId === item.msgId));
    this.items = [...stored, ...added];
    this.save();
  }

  /** Forgets the user's messages, in storage too. */
  clear(): void {
    this.items = [];
    this.save();
  }

  /** Turns away from the user. What is stored stays there. */
  detach(): void {
    this.items = [];
    this.key = undefined;
  }

  all(): readonly OutgoingMessage[] {
    return this.items;
  }

  of(conversationId: string): OutgoingMessage[] {
    return this.items.filter((item) => item.conversationId === conversationId);
  }

  get(msgId: string): OutgoingMessage | undefined {
    return this.items.find((item) => item.msgId === msgId);
  }

  add(item: OutgoingMessage): void {
    this.items = [...this.items, item];
    this.save();
  }

  remove(msgId: string): void {
    this.items = this.items.filter((item) => item.msgId !== msgId);
    this.save();
  }

  /** Replaces the message with the same id. */
  update(item: OutgoingMessage): void {
    this.items = this.items.map((old) => (old.msgId === item.msgId ? item : old));
    this.save();
  }

  private save(): void {
    if (this.key === undefined) return;
    // What the server has stored needs no copy here.
    const kept = this.items.filter((item) => item.state !== "sent");
    try {
      if (kept.length === 0) this.storage.remove(this.key);
      else this.storage.set(this.key, JSON.stringify(kept));
    } catch (thrown) {
      this.trouble(`the outbox could not be stored: ${String(thrown)}`);
    }
  }

  private load(key: string): OutgoingMessage[] {
    try {
      const raw: unknown = JSON.parse(this.storage.get(key) ?? "[]");
      return Array.isArray(raw) ? raw.map(readOutgoing).filter((item) => item !== null) : [];
    } catch (thrown) {
      this.trouble(`the stored outbox could not be read: ${String(thrown)}`);
      return [];
    }
  }
}

/** Storage is outside input too: other versions, other tabs and people write to it. */
function readOutgoing(raw: unknown): OutgoingMessage | null {
  if (!isObject(raw)) return null;
  const msgId = textOf(raw["msgId"]);
  const conversationId = textOf(raw["conversationId"]);
  const content = textOf(raw["content"]);
  if (msgId === undefined || conversationId === undefined || content === undefined) return null;
  const item: OutgoingMessage = {
    msgId,
    conversationId,
    content,
    msgType: wholeNumber(raw["msgType"]) ?? 1,
    createdAtMs: wholeNumber(raw["createdAtMs"]) ?? 0,
    state: raw["state"] === "failed" ? "failed" : "sending",
  };
  const error = raw["error"];
  return item.state === "failed" && isObject(error) ? { ...item, error: readStoredFailure(error) } : item;
}

function readStoredFailure(raw: Record<string, unknown>): Failure {
  return {
    name: textOf(raw["name"]) ?? "UNKNOWN",
    code: wholeNumber(raw["code"]) ?? 0,
    temporary: raw["temporary"] === true,
    retryAfterMs: wholeNumber(raw["retryAfterMs"]) ?? 0,
    detail: textOf(raw["detail"]) ?? "",
  };
}
