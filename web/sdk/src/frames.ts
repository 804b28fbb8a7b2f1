/** Reading of server frames. Nothing here throws, whatever the server sends. */

import type { Failure } from "./errors.js";
import type { Conversation, Member, MembershipEvent, Message, UserPresence } from "./types.js";

/** Command numbers of the JSON protocol. */
export const Cmd = {
  heartbeat: 0,
  login: 1,
  send: 2,
  pull: 3,
  push: 4,
  sync: 5,
  create: 6,
  join: 7,
  leave: 8,
  members: 9,
  lagged: 10,
  goaway: 11,
  event: 12,
  read: 13,
  resumed: 14,
  presence: 15,
  presenceChange: 16,
} as const;

/** Stands for the `null` with which the server refuses what it could not read. */
const UNREADABLE = -1;

/** A JSON object of unknown content. */
export type Json = Record<string, unknown>;

/** A server frame with its envelope checked; `body` is the whole object. */
export interface Frame {
  readonly cmd: number;
  /** 0 is success. */
  readonly code: number;
  readonly id: number | undefined;
  readonly msgId: string | undefined;
  readonly conversationId: string | undefined;
  readonly body: Json;
}

/** The frame in `text`, or null when it is none. */
export function parseFrame(text: string): Frame | null {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(body)) return null;
  const cmd = body["cmd"] === null ? UNREADABLE : wholeNumber(body["cmd"]);
  if (cmd === undefined) return null;
  // Pushes carry no code; an unreadable code must not pass for success.
  const code = body["code"] === undefined ? 0 : wholeNumber(body["code"]);
  if (code === undefined) return null;
  return {
    cmd,
    code,
    id: wholeNumber(body["id"]),
    msgId: textOf(body["msg_id"]),
    conversationId: textOf(body["conversation_id"]),
    body,
  };
}

/** The failure a frame (or a problem document of the REST API) carries. */
export function readFailure(code: number, raw: unknown): Failure {
  const error = isObject(raw) ? raw : {};
  return {
    name: textOf(error["name"]) ?? "UNKNOWN",
    code,
    // An error without a verdict: 5xx numbers are the server's trouble and may pass.
    temporary: typeof error["temporary"] === "boolean" ? error["temporary"] : code >= 500,
    retryAfterMs: wholeNumber(error["retry_after_ms"]) ?? 0,
    detail: textOf(error["detail"]) ?? "",
  };
}

/** One message; `conversationId` comes from the envelope. */
export function readMessage(raw: unknown, conversationId: string): Message | null {
  if (!isObject(raw)) return null;
  const seq = wholeNumber(raw["seq"]);
  if (seq === undefined || seq < 1) return null;
  const contentBase64 = textOf(raw["content_base64"]);
  return {
    conversationId,
    seq,
    messageId: idText(raw["message_id"]) ?? "",
    msgId: textOf(raw["msg_id"]) ?? "",
    senderId: idText(raw["sender_id"]) ?? "",
    sender: textOf(raw["sender"]) ?? "",
    content: textOf(raw["content"]) ?? "",
    ...(contentBase64 === undefined ? {} : { contentBase64 }),
    msgType: wholeNumber(raw["msg_type"]) ?? 1,
    createdAtMs: wholeNumber(raw["created_at_ms"]) ?? 0,
  };
}

/** One conversation as `sync`, `create`, `join` and `leave` answer it. */
export function readConversation(raw: unknown): Conversation | null {
  if (!isObject(raw)) return null;
  const conversationId = textOf(raw["conversation_id"]);
  if (conversationId === undefined || conversationId === "") return null;
  return {
    conversationId,
    type: raw["type"] === "direct" ? "direct" : "group",
    name: textOf(raw["name"]) ?? "",
    maxSeq: wholeNumber(raw["max_seq"]) ?? 0,
    readSeq: wholeNumber(raw["read_seq"]) ?? 0,
    unread: wholeNumber(raw["unread"]) ?? 0,
    memberCount: wholeNumber(raw["member_count"]) ?? 0,
    role: textOf(raw["role"]) ?? "",
    lastActiveAtMs: wholeNumber(raw["last_active_at_ms"]) ?? 0,
    lastMessage: readMessage(raw["last_message"], conversationId),
  };
}

/** One entry of a member list. */
export function readMember(raw: unknown): Member | null {
  if (!isObject(raw)) return null;
  const userId = idText(raw["user_id"]);
  if (userId === undefined) return null;
  const username = textOf(raw["username"]) ?? "";
  return { userId, username, nickname: textOf(raw["nickname"]) || username, role: textOf(raw["role"]) ?? "member" };
}

/** A membership event (cmd 12). */
export function readMembership(frame: Frame): MembershipEvent | null {
  const payload = frame.body["payload"];
  if (frame.conversationId === undefined || !isObject(payload)) return null;
  const event = textOf(payload["event"]);
  if (event === undefined) return null;
  return {
    conversationId: frame.conversationId,
    event,
    userId: idText(payload["user_id"]) ?? "",
    username: textOf(payload["username"]) ?? "",
  };
}

/** How things stand with one user, or null. */
export function readPresence(raw: unknown): UserPresence | null {
  if (!isObject(raw)) return null;
  const userId = idText(raw["user_id"]);
  const username = textOf(raw["username"]);
  if (userId === undefined || username === undefined) return null;
  const device = (one: unknown) =>
    isObject(one) ? { deviceId: textOf(one["device_id"]) ?? "", deviceClass: textOf(one["device_class"]) ?? "" } : null;
  const devices = raw["devices"] === undefined ? undefined : readList(raw["devices"], device);
  const lastSeenMs = wholeNumber(raw["last_seen_ms"]) ?? 0;
  return { userId, username, online: raw["online"] === true, lastSeenMs, ...(devices === undefined ? {} : { devices }) };
}

/** One page of a pull. */
export interface MessagePage {
  /** Ascending by seq. */
  readonly items: readonly Message[];
  readonly nextCursorSeq: number;
  readonly hasMore: boolean;
  /** Items that could not be read. */
  readonly malformed: number;
}

/** The page in a pull's answer; null when it has no list. Items outside the asked range are left out. */
export function readPage(body: Json, conversationId: string, inRange: (seq: number) => boolean): MessagePage | null {
  const payload = body["payload"];
  if (!Array.isArray(payload)) return null;
  const read = payload.map((raw) => readMessage(raw, conversationId));
  const items = read.filter((item): item is Message => item !== null && inRange(item.seq));
  items.sort((a, b) => a.seq - b.seq);
  return {
    items,
    nextCursorSeq: wholeNumber(body["next_cursor_seq"]) ?? items.at(-1)?.seq ?? 0,
    hasMore: body["has_more"] === true,
    malformed: read.filter((item) => item === null).length,
  };
}

/** Everything in `raw` that `read` understands; not a list counts as empty. */
export function readList<T>(raw: unknown, read: (item: unknown) => T | null): T[] {
  if (!Array.isArray(raw)) return [];
  return raw.map(read).filter((item): item is T & {} => item !== null);
}

/** Whether `value` is a JSON object (not null, not a list). */
export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A non-negative whole number that JavaScript holds exactly. */
export function wholeNumber(value: unknown): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/** A string. */
export function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** A 64-bit id: travels as a string; small numbers are taken too. */
function idText(value: unknown): string | undefined {
  return textOf(value) ?? (wholeNumber(value) === undefined ? undefined : String(value));
}
