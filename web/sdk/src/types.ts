/** What applications see. Wire keys are snake_case; here everything is camelCase. */

import type { Failure } from "./errors.js";

/** A message that the server has stored. */
export interface Message {
  readonly conversationId: string;
  /** Position in the conversation; dense and strictly rising. */
  readonly seq: number;
  /** The server's id (64 bits, therefore a string). */
  readonly messageId: string;
  /** The id its sender's device gave it. */
  readonly msgId: string;
  readonly senderId: string;
  /** User name of the sender. */
  readonly sender: string;
  /** Untrusted text: show it as text, never as HTML. */
  readonly content: string;
  /** Set, and `content` empty, when the content is not text: other clients may send any bytes. */
  readonly contentBase64?: string;
  /** 1 text, 2 image, 3 file, from 100 on the application's own. */
  readonly msgType: number;
  readonly createdAtMs: number;
}

/** Where an own message stands. */
export type OutgoingState =
  /** Kept on this device; will be sent as soon as there is a connection. */
  | "sending"
  /** Stored by the server. */
  | "sent"
  /** Refused for good; `error` says why. Retry or discard it. */
  | "failed";

/** A message of this device on its way out. */
export interface OutgoingMessage {
  readonly msgId: string;
  readonly conversationId: string;
  readonly content: string;
  readonly msgType: number;
  /** When the application called `send`, by this device's clock. */
  readonly createdAtMs: number;
  readonly state: OutgoingState;
  readonly error?: Failure;
  /** Known once `state` is `sent`. */
  readonly seq?: number;
  readonly messageId?: string;
}

/** The kind of a conversation. */
export type ConversationType = "direct" | "group";

/** One conversation of the user. */
export interface Conversation {
  readonly conversationId: string;
  readonly type: ConversationType;
  readonly name: string;
  readonly maxSeq: number;
  readonly readSeq: number;
  readonly unread: number;
  readonly memberCount: number;
  /** The user's own role: `owner`, `admin` or `member`. */
  readonly role: string;
  readonly lastActiveAtMs: number;
  readonly lastMessage: Message | null;
}

/** One member of a conversation. */
export interface Member {
  readonly userId: string;
  readonly username: string;
  readonly nickname: string;
  readonly role: string;
}

/** One page of a member list. */
export interface MemberPage {
  readonly members: readonly Member[];
  /** Pass it on to get the next page. */
  readonly nextCursor: number;
  readonly hasMore: boolean;
}

/** Who is logged in. */
export interface User {
  readonly userId: string;
  readonly username: string;
}

/** Whether a user is there. */
export interface UserPresence {
  readonly userId: string;
  readonly username: string;
  readonly online: boolean;
  /** When the user's last connection ended; 0 while there is one, or where it is not known. */
  readonly lastSeenMs: number;
  /** What the user is connected with; not part of news. */
  readonly devices?: readonly { readonly deviceId: string; readonly deviceClass: string }[];
}

/** Someone came or went. */
export interface MembershipEvent {
  readonly conversationId: string;
  readonly event: string;
  readonly userId: string;
  readonly username: string;
}

/** Why the client does not try to connect any more. */
export type StopReason =
  /** The token was refused and could not be renewed: log in again. */
  | "unauthenticated"
  /** The same device logged in elsewhere. */
  | "replaced"
  /** The server asked not to come back. */
  | "refused";

/** Where the connection stands. */
export type ConnectionState =
  /** Not asked to connect. */
  | { readonly status: "idle" }
  /** Opening the socket or logging in. */
  | { readonly status: "connecting" }
  /** Logged in. */
  | { readonly status: "online"; readonly user: User }
  /** Will try again at `retryAtMs` (by the client's clock). */
  | { readonly status: "waiting"; readonly retryAtMs: number }
  /** Gave up; `connect()` tries again. */
  | { readonly status: "stopped"; readonly reason: StopReason; readonly detail: string };

/** Something odd that the client handled by itself; worth a line in a log. */
export interface Warning {
  /** `MALFORMED_FRAME`, `SEQ_CONFLICT`, `STORAGE`, `SYNC_FAILED`, `PULL_FAILED`, `READ_FAILED`, `PRESENCE_FAILED`. */
  readonly name: string;
  readonly detail: string;
}

/** The client's events and what they carry. */
export interface ClientEvents {
  /** The connection's state changed. */
  connection: ConnectionState;
  /** One message, own ones included: in seq order, exactly once, per conversation. */
  message: Message;
  /** An own message changed its state. */
  outgoing: OutgoingMessage;
  /** A conversation appeared, changed, or (with `removed`) is gone. */
  conversation: { readonly conversationId: string; readonly removed: boolean };
  /** Someone joined, left or created a conversation. */
  membership: MembershipEvent;
  /** The messages kept for a conversation changed other than by one at its end. */
  history: { readonly conversationId: string };
  /** The list of conversations is complete after a (re)connect. */
  synced: { readonly conversations: number };
  /** The user logged in, or (null) out. */
  user: User | null;
  warning: Warning;
}

/** One conversation as it is kept: a run of messages without holes that ends at `lastSeq`. */
export interface ArchivedRoom {
  readonly info: Conversation;
  readonly lastSeq: number;
  readonly messages: readonly Message[];
}

/** A store of conversations on the device, by user. Any call may fail. */
export interface ArchiveStore {
  load(userId: string): Promise<unknown[]>;
  put(userId: string, rooms: readonly ArchivedRoom[]): Promise<void>;
  remove(userId: string, conversationIds: readonly string[]): Promise<void>;
  clear(userId: string): Promise<void>;
}
