/** A device's memory for tests. */

import type { ArchivedRoom, ArchiveStore } from "../src/types.js";

/** What a device keeps, as plain JSON, as a real store would. */
export class Shelf implements ArchiveStore {
  readonly users = new Map<string, Map<string, string>>();
  fail = false;
  hang = false;

  private of(userId: string): Map<string, string> {
    if (this.fail) throw new Error("disk");
    let rooms = this.users.get(userId);
    if (rooms === undefined) this.users.set(userId, (rooms = new Map()));
    return rooms;
  }

  async load(userId: string): Promise<unknown[]> {
    if (this.hang) return new Promise(() => {});
    return [...this.of(userId).values()].map((text) => JSON.parse(text) as unknown);
  }

  async put(userId: string, rooms: readonly ArchivedRoom[]): Promise<void> {
    for (const room of rooms) this.of(userId).set(room.info.conversationId, JSON.stringify(room));
  }

  async remove(userId: string, ids: readonly string[]): Promise<void> {
    for (const id of ids) this.of(userId).delete(id);
  }

  async clear(userId: string): Promise<void> {
    this.of(userId).clear();
  }

  room(userId: string, id: string): ArchivedRoom | undefined {
    const text = this.users.get(userId)?.get(id);
    return text === undefined ? undefined : (JSON.parse(text) as ArchivedRoom);
  }
}
