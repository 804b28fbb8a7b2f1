export { backoffCeilingMs, backoffMs, type BackoffOptions } from "./backoff.js";
export { defaultEnvironment, memoryStore, webStore } from "./browser.js";
export { type ClientOptions, CorelaneClient } from "./client.js";
export type {
  Cancel,
  Clock,
  Environment,
  Exclusive,
  KeyValueStore,
  Network,
  Random,
  Socket,
  SocketHandlers,
  Transport,
} from "./env.js";
export { closeAction, type CloseAction, CorelaneError, type Failure } from "./errors.js";
export { indexedDbArchive } from "./indexeddb.js";
export { DEFAULT_TUNING, type Tuning } from "./options.js";
export type { PresenceListener } from "./presence.js";
export type { TokenProvider } from "./session.js";
export type {
  ArchivedRoom,
  ArchiveStore,
  ClientEvents,
  ConnectionState,
  Conversation,
  ConversationType,
  Member,
  MemberPage,
  MembershipEvent,
  Message,
  OutgoingMessage,
  OutgoingState,
  StopReason,
  User,
  UserPresence,
  Warning,
} from "./types.js";
export { uuidV7 } from "./uuid.js";
