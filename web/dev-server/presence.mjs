// Who is there, and who is told when that changes.

import { Refusal } from "./refusal.mjs";

/** @typedef {import("./model.mjs").ChatModel} ChatModel */
/** @typedef {import("./model.mjs").Connection} Connection */
/** @typedef {import("./model.mjs").UserRow} UserRow */

/** Most users of one query. */
const USERS_MAX = 100;

/** Presence in one model. */
export class Presence {
  /** @param {ChatModel} model */
  constructor(model) {
    this.model = model;
    /** @type {Map<Connection, Set<string>>} user ids by who wants to know */
    this.lists = new Map();
    /** @type {Map<string, number>} by user id */
    this.lastSeen = new Map();
  }

  /** @param {Connection} connection @param {UserRow} user @param {any} payload */
  query(connection, user, { users, subscribe = false }) {
    if (!Array.isArray(users) || users.length > USERS_MAX) {
      throw new Refusal("BAD_REQUEST", "payload.users must be a list of at most 100 user names");
    }
    const asked = [...new Set(users)].flatMap((name) => this.model.users.get(name) ?? []);
    const known = asked.filter((other) => other === user || this.share(user, other));
    if (users.length === 0) this.lists.delete(connection);
    else if (subscribe) this.lists.set(connection, new Set(known.map((other) => other.id)));
    return { payload: asked.map((other) => this.state(other, known.includes(other))) };
  }

  /** The user may have come or gone. @param {UserRow} user @param {boolean} before */
  turned(user, before) {
    const online = this.devices(user).length > 0;
    if (online === before) return;
    if (!online) this.lastSeen.set(user.id, this.model.now());
    const last = online ? 0 : this.model.now();
    const payload = { user_id: user.id, username: user.username, online, last_seen_ms: last };
    for (const [connection, list] of this.lists) {
      if (list.has(user.id)) this.model.send(connection, { cmd: 16, payload });
    }
  }

  /** @param {Connection} connection */
  closed(connection) {
    this.lists.delete(connection);
    if (connection.user !== null) this.turned(connection.user, true);
  }

  /** @param {UserRow} user @param {UserRow} other */
  share(user, other) {
    return [...this.model.conversations.values()].some((one) => one.members.has(user.id) && one.members.has(other.id));
  }

  /** @param {UserRow} user */
  devices(user) {
    return [...this.model.connections].filter((one) => one.user === user);
  }

  /** @param {UserRow} user @param {boolean} known */
  state(user, known) {
    const devices = known ? this.devices(user).map((one) => ({ device_id: one.deviceId, device_class: "web" })) : [];
    const online = devices.length > 0;
    const last = known && !online ? (this.lastSeen.get(user.id) ?? 0) : 0;
    return { user_id: user.id, username: user.username, online, devices, last_seen_ms: last };
  }
}
