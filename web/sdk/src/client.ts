/** The client as applications see it. It wires the parts; the rules live in them. */

import { Archive } from "./archive.js";
import { defaultEnvironment } from "./browser.js";
import { Calls } from "./calls.js";
import { Emitter, type Listener } from "./emitter.js";
import type { Environment } from "./env.js";
import { asCorelaneError, localError } from "./errors.js";
import { Cmd, isObject, type Json, readConversation, readList, readMember, readPage, wholeNumber } from "./frames.js";
import { Inbound } from "./inbound.js";
import { Link } from "./link.js";
import { DEFAULT_TUNING, type Tuning } from "./options.js";
import { Outbox } from "./outbox.js";
import { Presence, type PresenceListener } from "./presence.js";
import { Puller } from "./puller.js";
import { Reader } from "./reader.js";
import { Rest } from "./rest.js";
import type { Room } from "./room.js";
import { Rooms } from "./rooms.js";
import { Sender } from "./sender.js";
import { Session, type TokenProvider } from "./session.js";
import { Syncer } from "./syncer.js";
import type {
  ClientEvents,
  ConnectionState,
  Conversation,
  MemberPage,
  Message,
  OutgoingMessage,
  User,
  UserPresence,
} from "./types.js";
import { uuidV7 } from "./uuid.js";

/** How to make a client. */
export interface ClientOptions {
  /** The server, for example `https://chat.example.org`. */
  baseUrl: string;
  /** Names this device to the server. Kept in storage when left out. */
  deviceId?: string;
  /** What kind of device this is; the server may limit devices by class. */
  deviceClass?: string;
  /** Where tokens come from when `login` is not used. */
  tokenProvider?: TokenProvider;
  /** Timing and limits other than the defaults. */
  tuning?: Partial<Tuning>;
  /** Parts of the outside world other than the runtime's own. */
  environment?: Partial<Environment>;
}

/** One user's connection to a Corelane server. */
export class CorelaneClient {
  private readonly env: Environment;
  private readonly tuning: Tuning;
  private readonly emitter: Emitter<ClientEvents>;
  private readonly rest: Rest;
  private readonly session: Session;
  private readonly link: Link;
  private readonly calls: Calls;
  private readonly rooms: Rooms;
  private readonly puller: Puller;
  private readonly syncer: Syncer;
  private readonly outbox: Outbox;
  private readonly sender: Sender;
  private readonly reader: Reader;
  private readonly archive: Archive;
  private readonly inbound: Inbound;
  private readonly others: Presence;
  private readonly deviceId: string;
  private readonly deviceClass: string;
  private known: User | undefined;
  /** Settles when what the device has kept is there. */
  private restored: Promise<void> = Promise.resolve();
  private unsubscribe: () => void = () => {};

  constructor(options: ClientOptions) {
    this.env = { ...defaultEnvironment(), ...options.environment };
    this.tuning = { ...DEFAULT_TUNING, ...options.tuning };
    this.deviceId = options.deviceId ?? this.keptDeviceId();
    this.deviceClass = options.deviceClass ?? "web";
    const baseUrl = options.baseUrl.replace(/\/+$/, "");
    this.emitter = new Emitter<ClientEvents>((thrown) => console.error("a listener failed", thrown));
    this.rest = new Rest(this.env, baseUrl);
    this.session = new Session(this.env, this.rest);
    this.known = options.tokenProvider === undefined ? this.session.user : undefined;
    this.calls = new Calls(this.env, this.tuning, (frame) => this.link.send(frame));
    this.outbox = new Outbox(this.env.storage, (detail) => this.warn("STORAGE", detail));
    this.sender = this.makeSender();
    this.rooms = this.makeRooms();
    this.puller = new Puller(this.env, this.tuning, this.calls, this.rooms, this.emitter);
    this.syncer = new Syncer(this.env, this.tuning, this.calls, this.rooms, this.emitter);
    this.reader = new Reader(this.env, this.tuning, this.calls, this.emitter);
    this.others = new Presence(this.env, this.calls, (detail) => this.warn("PRESENCE_FAILED", detail));
    const ownId = (): string | undefined => this.known?.userId;
    this.inbound = new Inbound(this.rooms, this.syncer, this.sender, this.calls, this.others, this.emitter, ownId);
    this.archive = new Archive(this.env, this.rooms, (detail) => this.warn("STORAGE", detail));
    this.emitter.on("conversation", ({ conversationId }) => this.archive.touch(conversationId));
    this.emitter.on("history", ({ conversationId }) => this.archive.touch(conversationId));
    this.link = this.makeLink(webSocketUrl(baseUrl), options.tokenProvider ?? this.session.token);
    if (this.known !== undefined) this.attach(this.known.userId);
  }

  // ---- account -------------------------------------------------------------------------------------

  /** Who is logged in on this device, known before there is a connection. */
  get user(): User | undefined {
    return this.known;
  }

  /** Makes an account and logs in with it. */
  async register(account: { username: string; password: string; nickname?: string }): Promise<User> {
    await this.rest.createUser(account.username, account.password, account.nickname);
    return this.login(account);
  }

  /** Logs in with a password and keeps the tokens. */
  async login(account: { username: string; password: string }): Promise<User> {
    const tokens = await this.rest.login(account.username, account.password, this.deviceId, this.deviceClass);
    if (this.known !== undefined && this.known.userId !== tokens.userId) this.forget();
    const user = this.session.begin(tokens, account.username);
    this.identify(user);
    return user;
  }

  /**
   * Ends the session on this device and revokes its refresh tokens. The device forgets everything of the
   * user, unsent messages included, even when the server cannot be reached.
   */
  async logout(): Promise<void> {
    const { accessToken } = this.session;
    this.forget();
    this.leaveSession();
    if (accessToken !== undefined) await this.rest.logout(accessToken).catch(() => {});
  }

  /**
   * For a session that ended by itself (`stopped` with `unauthenticated`): back to nobody logged in, but what
   * waits in the outbox and what was kept stays on the device for the same user's next login.
   */
  endSession(): void {
    this.forget({ keepStored: true });
    this.leaveSession();
  }

  // ---- connection ----------------------------------------------------------------------------------

  /** Where the connection stands. */
  get state(): ConnectionState {
    return this.link.state;
  }

  /** Connects, and stays connected until `disconnect`. */
  connect(): void {
    this.unsubscribe();
    this.unsubscribe = this.env.network.subscribe((online) => this.link.networkChanged(online));
    this.link.start();
  }

  /** Ends the connection. What is in the outbox stays there. */
  disconnect(): void {
    this.unsubscribe();
    this.unsubscribe = () => {};
    this.link.stop();
  }

  /** Tries to connect now when the client waits for its next attempt. */
  retryNow(): void {
    this.link.retryNow();
  }

  /** The application came back to the foreground: timers may have slept, so ask whether the server is there. */
  wake(): void {
    this.link.probe();
  }

  /** Adds a listener; the answer removes it. */
  on<K extends keyof ClientEvents>(kind: K, listener: Listener<ClientEvents[K]>): () => void {
    return this.emitter.on(kind, listener);
  }

  // ---- messages ------------------------------------------------------------------------------------

  /**
   * Sends a message. It is in the outbox when this returns, and goes out as soon as there is a connection;
   * `outgoing` events and `whenSent` tell what became of it.
   */
  send(conversationId: string, content: string, msgType = 1): OutgoingMessage {
    return this.sender.send(conversationId, content, msgType);
  }

  /** Settles once the server has stored the message, or has refused it for good. */
  whenSent(msgId: string): Promise<OutgoingMessage> {
    return this.sender.whenSent(msgId);
  }

  /** Sends a failed message again. False when there is no such message. */
  retry(msgId: string): boolean {
    return this.sender.retry(msgId);
  }

  /** Forgets a failed message. False when there is no such message. */
  discard(msgId: string): boolean {
    return this.sender.discard(msgId);
  }

  /** Own messages of the conversation that are not part of `messages` yet, oldest first. */
  outgoing(conversationId: string): readonly OutgoingMessage[] {
    return this.outbox.of(conversationId);
  }

  /** The messages in memory: one run without holes up to the newest, ascending. */
  messages(conversationId: string): readonly Message[] {
    return this.rooms.get(conversationId)?.messages ?? [];
  }

  /** Whether older messages exist than those in memory; undefined while nobody has asked. */
  hasOlder(conversationId: string): boolean | undefined {
    return this.rooms.get(conversationId)?.hasOlder;
  }

  /** Puts a page of older messages in front of those in memory. Answers whether still older ones exist. */
  async loadOlder(conversationId: string, limit = 50): Promise<boolean> {
    const room = this.rooms.get(conversationId);
    if (room === undefined || !room.anchored) {
      throw localError("CONVERSATION_NOT_FOUND", "the conversation is not on the list", false);
    }
    if (room.hasOlder === false) return false;
    room.loading ??= this.older(room, limit).finally(() => {
      room.loading = undefined;
    });
    await room.loading;
    return room.hasOlder ?? true;
  }

  /** The user has read the conversation up to `seq` (default: everything delivered). */
  markRead(conversationId: string, seq?: number): void {
    const room = this.rooms.get(conversationId);
    if (room === undefined || !room.read(seq ?? room.lastSeq, this.known?.userId ?? "")) return;
    this.reader.mark(conversationId, seq ?? room.lastSeq);
    this.rooms.changed(room);
  }

  // ---- conversations -------------------------------------------------------------------------------

  /** All conversations, most recently active first. */
  conversations(): Conversation[] {
    return this.rooms.list();
  }

  /** One conversation of the list. */
  conversation(conversationId: string): Conversation | undefined {
    return this.rooms.get(conversationId)?.info;
  }

  /** Whether the list has been read from the server since the client was made. */
  get synced(): boolean {
    return this.syncer.synced;
  }

  /** The conversation with one other user, made when there is none. */
  async createDirect(username: string): Promise<Conversation> {
    return this.conversationCall({ cmd: Cmd.create, payload: { type: "direct", members: [username] } }, true);
  }

  /** Makes a group with the given members; the user becomes its owner. */
  async createGroup(group: { name: string; members: string[]; conversationId?: string }): Promise<Conversation> {
    const { name, members, conversationId } = group;
    const payload = {
      type: "group",
      name,
      members,
      ...(conversationId === undefined ? {} : { conversation_id: conversationId }),
    };
    return this.conversationCall({ cmd: Cmd.create, payload }, false);
  }

  /** Joins a group by its id. */
  async join(conversationId: string): Promise<Conversation> {
    return this.conversationCall({ cmd: Cmd.join, conversation_id: conversationId }, true);
  }

  /** Leaves a group. */
  async leave(conversationId: string): Promise<void> {
    await this.calls.call({ cmd: Cmd.leave, conversation_id: conversationId }).catch((thrown: unknown) => {
      // Repeated after a lost answer: the first one did it.
      if (asCorelaneError(thrown).name !== "NOT_A_MEMBER") throw thrown;
    });
    this.inbound.drop(conversationId);
  }

  /** One page of the member list, from `cursor` (0: the start). */
  async members(conversationId: string, cursor = 0, limit = 100): Promise<MemberPage> {
    const answer = await this.calls.call({ cmd: Cmd.members, conversation_id: conversationId, cursor, limit });
    return {
      members: readList(answer.body["payload"], readMember),
      nextCursor: wholeNumber(answer.body["next_cursor"]) ?? Number(answer.body["next_cursor"] ?? 0),
      hasMore: answer.body["has_more"] === true,
    };
  }

  // ---- presence ------------------------------------------------------------------------------------

  /** Which of these users (at most 100) are there. Those one shares no conversation with look as if they never were. */
  presence(names: readonly string[]): Promise<UserPresence[]> {
    return this.others.query(names);
  }

  /** Tells how things stand with these users, and again when it changes, until the answer is called. At most 100 in all. */
  watchPresence(names: readonly string[], listener: PresenceListener): () => void {
    return this.others.watch(names, listener);
  }

  // ---- wiring --------------------------------------------------------------------------------------

  private makeLink(url: string, token: TokenProvider): Link {
    const { deviceId, deviceClass, tuning } = this;
    return new Link(this.env, { url, deviceId, deviceClass, tuning }, {
      token: async (renew) => {
        // Catching up starts where the kept messages end, so they come first.
        await this.restored;
        return token(renew);
      },
      resumePoints: () => this.rooms.resumePoints(),
      stateChanged: (state) => this.emitter.emit("connection", state),
      up: (user) => this.up(user),
      down: () => this.down(),
      frame: (frame) => this.emitter.batch(() => this.inbound.received(frame)),
      malformed: (text) => this.warn("MALFORMED_FRAME", text.slice(0, 100)),
    });
  }

  private makeSender(): Sender {
    return new Sender(this.env, this.tuning, this.outbox, this.emitter, {
      transmit: (frame) => this.link.send(frame),
      requestId: () => this.calls.id(),
      stored: (item, seq, messageId, createdAtMs) => this.stored(item, seq, messageId, createdAtMs),
      unauthenticated: () => this.link.reauthenticate(),
    });
  }

  private makeRooms(): Rooms {
    return new Rooms(
      this.emitter,
      {
        ownId: () => this.known?.userId ?? "",
        delivering: (message) => {
          if (message.senderId === this.known?.userId) this.sender.delivering(message);
        },
        behind: (room) => this.puller.soon(room),
        lagged: (room) => this.puller.now(room),
        unknown: (conversationId) => this.syncer.lookUp(conversationId),
      },
      this.tuning,
    );
  }

  private up(user: User): void {
    this.identify({ userId: user.userId, username: user.username || (this.known?.username ?? "") });
    this.calls.up();
    this.syncer.up();
    this.sender.up();
    this.reader.up();
    this.others.up();
  }

  private down(): void {
    this.calls.down();
    this.syncer.down();
    this.sender.down();
    this.reader.down();
    this.others.down();
  }

  private identify(user: User): void {
    const changed = this.known?.userId !== user.userId || this.known.username !== user.username;
    const other = this.known?.userId !== user.userId;
    if (other && this.known !== undefined) this.rooms.clear();
    this.known = user;
    if (other) this.attach(user.userId);
    if (changed) this.emitter.emit("user", user);
  }

  /** Turns to what this device keeps of the user. */
  private attach(userId: string): void {
    this.outbox.attach(userId);
    this.restored = this.archive.attach(userId, (kept) => {
      // After the first sync the server has spoken for all conversations.
      if (this.known?.userId === userId && !this.syncer.synced) this.rooms.restore(kept);
    });
  }

  private leaveSession(): void {
    this.session.end();
    this.known = undefined;
    this.emitter.emit("user", null);
  }

  private forget({ keepStored = false } = {}): void {
    this.disconnect();
    this.sender.reset();
    this.reader.reset();
    this.others.reset();
    this.syncer.reset();
    if (!keepStored) {
      this.outbox.clear();
      this.archive.clear();
    }
    this.outbox.detach();
    this.archive.detach();
    this.rooms.clear();
  }

  private stored(item: OutgoingMessage, seq: number, messageId: string, createdAtMs: number): void {
    this.rooms.push({
      conversationId: item.conversationId,
      seq,
      messageId,
      msgId: item.msgId,
      senderId: this.known?.userId ?? "",
      sender: this.known?.username ?? "",
      content: item.content,
      msgType: item.msgType,
      createdAtMs,
    });
  }

  private async older(room: Room, limit: number): Promise<void> {
    const { conversationId, firstSeq } = room;
    const answer = await this.calls.call({
      cmd: Cmd.pull,
      conversation_id: conversationId,
      cursor_seq: firstSeq,
      limit,
      direction: "backward",
    });
    const page = readPage(answer.body, conversationId, (seq) => seq < firstSeq);
    if (page === null) throw localError("BAD_ANSWER", "the answer has no messages", true);
    if (this.rooms.get(conversationId) !== room) return;
    if (!room.prepend(firstSeq, page.items, page.nextCursorSeq, page.hasMore)) return;
    this.emitter.emit("history", { conversationId });
  }

  private async conversationCall(frame: Json, repeat: boolean): Promise<Conversation> {
    const answer = await this.calls.call(frame, { repeat });
    const payload = answer.body["payload"];
    const info = readConversation(isObject(payload) ? payload : null);
    if (info === null) throw localError("BAD_ANSWER", "the answer has no conversation", true);
    this.syncer.touched(info.conversationId);
    this.rooms.learn(info, "newest");
    return this.rooms.get(info.conversationId)?.info ?? info;
  }

  private warn(name: string, detail: string): void {
    this.emitter.emit("warning", { name, detail });
  }

  private keptDeviceId(): string {
    const key = "device_id";
    try {
      const kept = this.env.storage.get(key);
      if (kept !== null && kept !== "") return kept;
      const made = uuidV7(this.env.clock.now(), this.env.random);
      this.env.storage.set(key, made);
      return made;
    } catch {
      return uuidV7(this.env.clock.now(), this.env.random);
    }
  }
}

function webSocketUrl(baseUrl: string): string {
  return `${baseUrl.replace(/^http/, "ws")}/ws`;
}
