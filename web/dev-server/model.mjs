// A chat server in memory that speaks the public protocol: the counterpart of the SDK's tests and of the
// development server. It holds no sockets and no timers; links and time are handed in.

import { Presence } from "./presence.mjs";
import { Refusal } from "./refusal.mjs";
import { resumed } from "./resume.mjs";

/** @typedef {{ send(text: string): void, close(code: number, reason: string): void }} ServerLink */
/** @typedef {{ id: string, username: string, nickname: string, password: string }} UserRow */
/** @typedef {{ msg_id: string, message_id: string, seq: number, sender_id: string, sender: string, content: string, msg_type: number, created_at_ms: number }} MessageRow */
/** @typedef {{ id: string, type: string, name: string, members: Map<string, { role: string, readSeq: number }>, messages: MessageRow[], byMsgId: Map<string, MessageRow>, activeAtMs: number, order: number }} ConversationRow */
/** @typedef {{ link: ServerLink, user: UserRow | null, deviceId: string, tokens: number, refilledAtMs: number, open: boolean }} Connection */

export class ChatModel {
  /**
   * @param {{ now?: () => number, heartbeatMs?: number, tokenLifeMs?: number, contentMaxBytes?: number,
   *           rate?: { perSecond: number, burst: number } | null, resumes?: boolean }} [options]
   */
  constructor(options = {}) {
    this.now = options.now ?? Date.now;
    this.heartbeatMs = options.heartbeatMs ?? 30_000;
    this.tokenLifeMs = options.tokenLifeMs ?? 3_600_000;
    this.contentMaxBytes = options.contentMaxBytes ?? 4096;
    this.rate = options.rate ?? null;
    /** Off: a server that brings nothing back, so that clients pull. */
    this.resumes = options.resumes ?? false;
    /** @type {Map<string, UserRow>} by name */
    this.users = new Map();
    /** @type {Map<string, { userId: string, expiresAtMs: number }>} */
    this.accessTokens = new Map();
    /** @type {Map<string, string>} token to user name */
    this.refreshTokens = new Map();
    /** @type {Map<string, ConversationRow>} */
    this.conversations = new Map();
    /** @type {Set<Connection>} */
    this.connections = new Set();
    this.presence = new Presence(this);
    this.counter = 0;
    this.activity = 0;
  }

  // ---- REST -----------------------------------------------------------------------------------------

  /**
   * Answers one REST call.
   * @param {string} method @param {string} path @param {any} body @param {string | undefined} bearer
   * @returns {{ status: number, body: any }}
   */
  rest(method, path, body, bearer) {
    try {
      return this.route(`${method} ${path}`, body ?? {}, bearer);
    } catch (thrown) {
      if (!(thrown instanceof Refusal)) throw thrown;
      const problem = thrown.problem();
      return { status: problem.status, body: problem };
    }
  }

  /** @param {string} call @param {any} body @param {string | undefined} bearer */
  route(call, body, bearer) {
    switch (call) {
      case "POST /api/v1/users":
        return { status: 201, body: this.createUser(body) };
      case "POST /api/v1/login":
        return { status: 200, body: this.login(body) };
      case "POST /api/v1/token/refresh":
        return { status: 200, body: this.refresh(body) };
      case "POST /api/v1/logout": {
        const user = this.authorize(bearer);
        for (const [token, name] of this.refreshTokens) if (name === user.username) this.refreshTokens.delete(token);
        return { status: 204, body: undefined };
      }
      default:
        return { status: 404, body: { title: "Not Found", status: 404, code: "NOT_FOUND" } };
    }
  }

  /** @param {any} body */
  createUser({ username, password, nickname }) {
    if (typeof username !== "string" || !/^[A-Za-z0-9_.-]{1,32}$/.test(username)) {
      throw new Refusal("BAD_REQUEST", "username: 1 to 32 letters, digits, dots, dashes or underscores");
    }
    if (typeof password !== "string" || password.length < 8) {
      throw new Refusal("BAD_REQUEST", "password: at least 8 characters");
    }
    if (this.users.has(username)) throw new Refusal("ALREADY_EXISTS", "this user name is taken");
    const user = { id: String(1000 + ++this.counter), username, nickname: nickname || username, password };
    this.users.set(username, user);
    return { user_id: user.id, username, nickname: user.nickname };
  }

  /** @param {any} body */
  login({ username, password }) {
    const user = this.users.get(username);
    if (user === undefined || user.password !== password) {
      throw new Refusal("UNAUTHENTICATED", "wrong user name or password");
    }
    return this.issue(user);
  }

  /** @param {any} body */
  refresh({ refresh_token: token }) {
    const user = this.users.get(this.refreshTokens.get(token) ?? "");
    if (user === undefined) throw new Refusal("UNAUTHENTICATED", "the refresh token is not valid");
    this.refreshTokens.delete(token);
    return this.issue(user);
  }

  /** @param {UserRow} user */
  issue(user) {
    const access = `access-${++this.counter}`;
    const refresh = `refresh-${++this.counter}`;
    this.accessTokens.set(access, { userId: user.id, expiresAtMs: this.now() + this.tokenLifeMs });
    this.refreshTokens.set(refresh, user.username);
    return { user_id: user.id, access_token: access, refresh_token: refresh, expires_in: this.tokenLifeMs / 1000 };
  }

  /** @param {string | undefined} token */
  authorize(token) {
    const entry = this.accessTokens.get(token ?? "");
    if (entry === undefined || entry.expiresAtMs <= this.now()) {
      throw new Refusal("UNAUTHENTICATED", "the token was refused");
    }
    return this.userById(entry.userId);
  }

  /** @param {string} id @returns {UserRow} */
  userById(id) {
    for (const user of this.users.values()) if (user.id === id) return user;
    throw new Refusal("USER_NOT_FOUND", "no such user");
  }

  // ---- connections ----------------------------------------------------------------------------------

  /** A client connected. @param {ServerLink} link @returns {Connection} */
  open(link) {
    const connection = {
      link,
      user: null,
      deviceId: "",
      tokens: this.rate?.burst ?? 0,
      refilledAtMs: this.now(),
      open: true,
    };
    this.connections.add(connection);
    return connection;
  }

  /** The client is gone. @param {Connection} connection */
  closed(connection) {
    connection.open = false;
    if (this.connections.delete(connection)) this.presence.closed(connection);
  }

  /** @param {Connection} connection @param {number} code @param {string} reason */
  close(connection, code, reason) {
    this.closed(connection);
    connection.link.close(code, reason);
  }

  /** One text message arrived. @param {Connection} connection @param {string} text */
  text(connection, text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.close(connection, 1007, "not JSON");
    }
    const echo = frame.id === undefined ? {} : { id: frame.id };
    try {
      const answer = this.command(connection, frame);
      if (answer !== undefined) this.send(connection, { cmd: frame.cmd, code: 0, ...echo, ...answer });
    } catch (thrown) {
      if (!(thrown instanceof Refusal)) throw thrown;
      const msgId = frame.msg_id === undefined ? {} : { msg_id: frame.msg_id };
      this.send(connection, { cmd: frame.cmd, ...echo, ...msgId, ...thrown.frame() });
      if (frame.cmd === 1) this.close(connection, 4200, "the token was refused");
    }
  }

  /** @param {Connection} connection @param {any} frame */
  send(connection, frame) {
    if (connection.open) connection.link.send(JSON.stringify(frame));
  }

  /** @param {Connection} connection @param {any} frame @returns {object | undefined} */
  command(connection, frame) {
    if (frame.cmd === 0) return {};
    if (frame.cmd === 1) return this.hello(connection, frame.payload ?? {});
    const { user } = connection;
    if (user === null) throw new Refusal("UNAUTHENTICATED", "log in first");
    switch (frame.cmd) {
      case 2:
        this.charge(connection);
        return this.post(connection, user, frame);
      case 3:
        return this.pull(user, frame);
      case 5:
        return this.sync(user, frame);
      case 6:
        return { payload: this.view(this.create(user, frame.payload ?? {}), user) };
      case 7:
        return { payload: this.view(this.join(user, frame.conversation_id), user) };
      case 8:
        return { payload: this.leave(user, frame.conversation_id) };
      case 9:
        return this.memberPage(user, frame);
      case 13:
        return this.read(user, frame);
      case 15:
        return this.presence.query(connection, user, frame.payload ?? {});
      default:
        throw new Refusal("UNKNOWN_COMMAND", `no command ${String(frame.cmd)}`);
    }
  }

  /** @param {Connection} connection @param {any} payload */
  hello(connection, payload) {
    if (connection.user !== null) throw new Refusal("BAD_REQUEST", "logged in already");
    const user = this.authorize(payload.token);
    connection.deviceId = String(payload.device_id ?? "");
    for (const other of [...this.connections]) {
      if (other !== connection && other.user === user && other.deviceId === connection.deviceId) {
        this.close(other, 4900, "the same device logged in elsewhere");
      }
    }
    const before = this.presence.devices(user).length > 0;
    connection.user = user;
    this.presence.turned(user, before);
    if (this.resumes) {
      const frames = resumed(this.conversations, user.id, payload.resume ?? []);
      // Behind the login's answer.
      queueMicrotask(() => frames.forEach((frame) => connection.open && this.send(connection, frame)));
    }
    return {
      payload: {
        user_id: user.id,
        username: user.username,
        heartbeat_ms: this.heartbeatMs,
        server_time_ms: this.now(),
      },
    };
  }

  /** Token bucket for sends. @param {Connection} connection */
  charge(connection) {
    if (this.rate === null) return;
    const { perSecond, burst } = this.rate;
    const passedMs = this.now() - connection.refilledAtMs;
    connection.tokens = Math.min(burst, connection.tokens + (passedMs * perSecond) / 1000);
    connection.refilledAtMs = this.now();
    if (connection.tokens < 1) {
      const waitMs = Math.ceil(((1 - connection.tokens) * 1000) / perSecond);
      throw new Refusal("RATE_LIMITED", "too many messages", waitMs);
    }
    connection.tokens -= 1;
  }

  // ---- messages -------------------------------------------------------------------------------------

  /** @param {Connection} connection @param {UserRow} user @param {any} frame */
  post(connection, user, frame) {
    const { content, msg_type: msgType = 1 } = frame.payload ?? {};
    if (typeof content !== "string" || typeof frame.msg_id !== "string") {
      throw new Refusal("BAD_REQUEST", "msg_id and payload.content are strings");
    }
    if (new TextEncoder().encode(content).length > this.contentMaxBytes) {
      throw new Refusal("TOO_LARGE", `content: at most ${this.contentMaxBytes} bytes`);
    }
    const conversation = this.memberOf(user, frame.conversation_id);
    const { row, fresh } = this.store(conversation, user, frame.msg_id, content, msgType);
    if (fresh) this.push(conversation, row, connection);
    return {
      msg_id: row.msg_id,
      conversation_id: conversation.id,
      seq: row.seq,
      message_id: row.message_id,
      created_at_ms: row.created_at_ms,
    };
  }

  /** @param {ConversationRow} conversation @param {UserRow} user @param {string} msgId @param {string} content @param {number} msgType */
  store(conversation, user, msgId, content, msgType = 1) {
    const key = `${user.id} ${msgId}`;
    const known = conversation.byMsgId.get(key);
    if (known !== undefined) return { row: known, fresh: false };
    const row = {
      msg_id: msgId,
      message_id: String(9_000_000_000_000_000_000n + BigInt(++this.counter)),
      seq: (conversation.messages.at(-1)?.seq ?? 0) + 1,
      sender_id: user.id,
      sender: user.username,
      content,
      msg_type: msgType,
      created_at_ms: this.now(),
    };
    conversation.messages.push(row);
    conversation.byMsgId.set(key, row);
    this.touch(conversation);
    const member = conversation.members.get(user.id);
    // Who writes has read.
    if (member !== undefined) member.readSeq = row.seq;
    return { row, fresh: true };
  }

  /** @param {ConversationRow} conversation @param {MessageRow} row @param {Connection | null} except */
  push(conversation, row, except) {
    for (const other of this.connectionsOf(conversation)) {
      if (other !== except) this.send(other, { cmd: 4, conversation_id: conversation.id, payload: row });
    }
  }

  /** @param {UserRow} user @param {any} frame */
  pull(user, frame) {
    const conversation = this.memberOf(user, frame.conversation_id);
    const limit = Math.min(500, Math.max(1, frame.limit ?? 50));
    const cursor = frame.cursor_seq ?? 0;
    const backward = frame.direction === "backward";
    const range = conversation.messages.filter((row) =>
      backward ? cursor === 0 || row.seq < cursor : row.seq > cursor,
    );
    const page = backward ? range.slice(-limit) : range.slice(0, limit);
    return {
      conversation_id: conversation.id,
      payload: page,
      next_cursor_seq: (backward ? page[0]?.seq : page.at(-1)?.seq) ?? cursor,
      has_more: range.length > page.length,
    };
  }

  /** @param {UserRow} user @param {any} frame */
  read(user, frame) {
    const conversation = this.memberOf(user, frame.conversation_id);
    const member = /** @type {{ role: string, readSeq: number }} */ (conversation.members.get(user.id));
    const top = conversation.messages.at(-1)?.seq ?? 0;
    member.readSeq = Math.max(member.readSeq, Math.min(top, frame.read_seq ?? 0));
    return { conversation_id: conversation.id, read_seq: member.readSeq };
  }

  // ---- conversations --------------------------------------------------------------------------------

  /** @param {UserRow} user @param {any} frame */
  sync(user, frame) {
    const limit = Math.max(1, frame.limit ?? 50);
    const offset = Number(frame.cursor || "0");
    const mine = [...this.conversations.values()].filter((one) => one.members.has(user.id));
    mine.sort((a, b) => b.order - a.order);
    const page = mine.slice(offset, offset + limit);
    const hasMore = offset + page.length < mine.length;
    return {
      payload: page.map((one) => this.view(one, user)),
      next_cursor: hasMore ? String(offset + page.length) : "",
      has_more: hasMore,
    };
  }

  /** @param {ConversationRow} conversation @param {UserRow} user */
  view(conversation, user) {
    const member = conversation.members.get(user.id);
    const last = conversation.messages.at(-1) ?? null;
    const readSeq = member?.readSeq ?? 0;
    return {
      conversation_id: conversation.id,
      type: conversation.type,
      name: conversation.type === "direct" ? this.peerName(conversation, user) : conversation.name,
      max_seq: last?.seq ?? 0,
      read_seq: readSeq,
      unread: (last?.seq ?? 0) - readSeq,
      member_count: conversation.members.size,
      role: member?.role ?? "",
      last_active_at_ms: conversation.activeAtMs,
      last_message: last,
    };
  }

  /** @param {ConversationRow} conversation @param {UserRow} user */
  peerName(conversation, user) {
    for (const id of conversation.members.keys()) if (id !== user.id) return this.userById(id).username;
    return user.username;
  }

  /** @param {UserRow} user @param {any} payload @returns {ConversationRow} */
  create(user, { type, conversation_id: wishedId, name = "", members = [] }) {
    const others = members.map((/** @type {string} */ username) => {
      const found = this.users.get(username);
      if (found === undefined) throw new Refusal("USER_NOT_FOUND", `no user named ${username}`);
      return found;
    });
    if (type === "direct") {
      if (others.length !== 1) throw new Refusal("BAD_REQUEST", "a direct conversation names one other user");
      const id = `d_${[user.id, others[0].id].sort().join("_")}`;
      return this.conversations.get(id) ?? this.add(id, "direct", "", user, others);
    }
    if (type !== "group") throw new Refusal("BAD_REQUEST", "type: group or direct");
    const id = wishedId ?? `g_${++this.counter}`;
    if (this.conversations.has(id)) throw new Refusal("ALREADY_EXISTS", "this id is taken");
    return this.add(id, "group", name, user, others);
  }

  /** @param {string} id @param {string} type @param {string} name @param {UserRow} owner @param {UserRow[]} others @returns {ConversationRow} */
  add(id, type, name, owner, others) {
    const members = new Map([[owner.id, { role: type === "group" ? "owner" : "member", readSeq: 0 }]]);
    for (const other of others) if (!members.has(other.id)) members.set(other.id, { role: "member", readSeq: 0 });
    const conversation = { id, type, name, members, messages: [], byMsgId: new Map(), activeAtMs: this.now(), order: 0 };
    this.conversations.set(id, conversation);
    this.touch(conversation);
    this.announce(conversation, "created", owner);
    return conversation;
  }

  /** @param {UserRow} user @param {string} id */
  join(user, id) {
    const conversation = this.conversations.get(id);
    if (conversation === undefined || conversation.type !== "group") {
      throw new Refusal("CONVERSATION_NOT_FOUND", "no such group");
    }
    if (!conversation.members.has(user.id)) {
      const readSeq = conversation.messages.at(-1)?.seq ?? 0;
      conversation.members.set(user.id, { role: "member", readSeq });
      this.announce(conversation, "joined", user);
    }
    return conversation;
  }

  /** @param {UserRow} user @param {string} id */
  leave(user, id) {
    const conversation = this.memberOf(user, id);
    this.announce(conversation, "left", user);
    conversation.members.delete(user.id);
    return this.view(conversation, user);
  }

  /** @param {UserRow} user @param {any} frame */
  memberPage(user, frame) {
    const conversation = this.memberOf(user, frame.conversation_id);
    const offset = frame.cursor ?? 0;
    const limit = frame.limit ?? 100;
    const all = [...conversation.members].map(([id, { role }]) => {
      const { username, nickname } = this.userById(id);
      return { user_id: id, username, nickname, role };
    });
    const page = all.slice(offset, offset + limit);
    return { payload: page, next_cursor: offset + page.length, has_more: offset + page.length < all.length };
  }

  /** @param {ConversationRow} conversation @param {string} event @param {UserRow} user */
  announce(conversation, event, user) {
    const payload = { event, user_id: user.id, username: user.username };
    for (const one of this.connectionsOf(conversation)) {
      this.send(one, { cmd: 12, conversation_id: conversation.id, payload });
    }
  }

  /** @param {ConversationRow} conversation */
  touch(conversation) {
    conversation.activeAtMs = this.now();
    conversation.order = ++this.activity;
  }

  /** @param {ConversationRow} conversation */
  connectionsOf(conversation) {
    return [...this.connections].filter((one) => one.user !== null && conversation.members.has(one.user.id));
  }

  /** @param {UserRow} user @param {any} id @returns {ConversationRow} */
  memberOf(user, id) {
    const conversation = typeof id === "string" ? this.conversations.get(id) : undefined;
    if (conversation === undefined) throw new Refusal("CONVERSATION_NOT_FOUND", "no such conversation");
    if (!conversation.members.has(user.id)) throw new Refusal("NOT_A_MEMBER", "not a member of the conversation");
    return conversation;
  }
}
