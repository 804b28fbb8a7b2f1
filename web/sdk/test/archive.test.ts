import { describe, expect, it } from "vitest";
import { ARCHIVED_MESSAGES } from "../src/archive.js";
import { Shelf } from "./shelf.js";
import { store, World, type Person } from "./world.js";

const upTo = (n: number, from = 1): number[] => Array.from({ length: n - from + 1 }, (_, i) => from + i);

/** A client with a device that remembers, and a way to reload it. */
async function device() {
  const world = new World();
  const { bob, id } = await world.pair();
  const shelf = new Shelf();
  const environment = { storage: store(), archive: shelf };
  const open = (): Person => world.person("desk", { deviceId: "desk", environment });
  const first = open();
  await first.client.login({ username: "alice", password: "password-1" });
  first.client.connect();
  await world.clock.advance(300);
  const userId = first.client.user!.userId;
  const reload = async (before: Person): Promise<Person> => {
    await world.clock.advance(1_000);
    before.client.disconnect();
    const after = open();
    await world.clock.advance(1);
    return after;
  };
  return { world, bob, id, shelf, userId, first, open, reload };
}

describe("the archive", () => {
  it("shows list and messages before there is a connection", async () => {
    const { world, bob, id, first, reload } = await device();
    for (const text of ["1", "2", "3"]) bob.client.send(id, text);
    await world.clock.advance(500);
    world.reachable = false;
    const again = await reload(first);
    again.client.connect();
    await world.clock.advance(5_000);
    expect(again.client.conversations()).toMatchObject([{ conversationId: id, unread: 3, lastMessage: { content: "3" } }]);
    expect(again.client.messages(id).map((m) => m.content)).toEqual(["1", "2", "3"]);
    expect(again.client.hasOlder(id)).toBe(false);
    expect(again.messages).toEqual([]);
  });

  it("lets the client catch up from where it ended: each message is delivered once over all reloads", async () => {
    const { world, bob, id, first, reload } = await device();
    bob.client.send(id, "1");
    await world.clock.advance(300);
    let desk = first;
    const seen = [...desk.seqs(id)];
    for (let round = 0; round < 4; round++) {
      desk = await reload(desk);
      bob.client.send(id, `away ${round}`);
      await world.clock.advance(100);
      desk.client.connect();
      await world.clock.advance(500);
      bob.client.send(id, `there ${round}`);
      await world.clock.advance(500);
      seen.push(...desk.seqs(id));
    }
    expect(seen).toEqual(upTo(9));
    expect(desk.client.messages(id).map((m) => m.seq)).toEqual(upTo(9));
    expect(desk.client.conversation(id)?.unread).toBe(9);
  });

  it("keeps the newest messages only, as one run", async () => {
    const { world, bob, id, shelf, userId, first, reload } = await device();
    for (let i = 1; i <= ARCHIVED_MESSAGES + 50; i++) bob.client.send(id, String(i));
    await world.clock.advance(5_000);
    expect(shelf.room(userId, id)?.messages.map((m) => m.seq)).toEqual(upTo(150, 51));
    const again = await reload(first);
    again.client.connect();
    await world.clock.advance(500);
    expect(again.client.hasOlder(id)).toBeUndefined();
    await world.run(again.client.loadOlder(id, 100));
    expect(again.client.messages(id).map((m) => m.seq)).toEqual(upTo(150));
  });

  it("keeps nothing behind a hole", async () => {
    const { world, bob, id, shelf, userId } = await device();
    bob.client.send(id, "1");
    await world.clock.advance(100);
    world.toClient = (frame) => (frame["cmd"] === 3 || (frame["cmd"] === 4 && (frame["payload"] as { seq: number }).seq === 2) ? [] : [frame]);
    bob.client.send(id, "2");
    bob.client.send(id, "3");
    await world.clock.advance(2_000);
    expect(shelf.room(userId, id)).toMatchObject({ lastSeq: 1, messages: [{ seq: 1 }] });
  });

  it("gathers writes", async () => {
    const { world, bob, id, shelf } = await device();
    let writes = 0;
    const put = shelf.put.bind(shelf);
    shelf.put = (userId, rooms) => {
      writes += 1;
      return put(userId, rooms);
    };
    for (let i = 0; i < 50; i++) bob.client.send(id, String(i));
    await world.clock.advance(2_000);
    expect(writes).toBeLessThanOrEqual(3);
  });

  it("drops conversations that were left, here or elsewhere", async () => {
    const { world, id, shelf, userId, first, reload } = await device();
    const other = await world.run(first.client.createGroup({ name: "other", members: [] }));
    await world.clock.advance(1_000);
    await world.run(first.client.leave(other.conversationId), 1_000);
    expect(shelf.room(userId, other.conversationId)).toBeUndefined();
    const again = await reload(first);
    world.server.conversations.get(id)!.members.delete(userId);
    again.client.connect();
    await world.clock.advance(2_000);
    expect(again.client.conversations()).toEqual([]);
    expect(shelf.room(userId, id)).toBeUndefined();
  });

  it("is emptied by logout", async () => {
    const { world, id, shelf, userId, first } = await device();
    await world.clock.advance(1_000);
    expect(shelf.room(userId, id)).toBeDefined();
    await first.client.logout();
    await world.clock.advance(1_000);
    expect(shelf.users.get(userId)?.size).toBe(0);
  });

  it("and outbox survive a session that ended by itself", async () => {
    const { world, bob, id, shelf, userId, first } = await device();
    bob.client.send(id, "1");
    await world.clock.advance(1_000);
    world.server.accessTokens.clear();
    world.server.refreshTokens.clear();
    first.wire.close(4200);
    await world.clock.advance(2_000);
    expect(first.client.state).toMatchObject({ status: "stopped", reason: "unauthenticated" });
    first.client.send(id, "still here");
    first.client.endSession();
    expect(first.client.user).toBeUndefined();
    expect(first.client.conversations()).toEqual([]);
    await world.clock.advance(1_000);
    expect(shelf.room(userId, id)).toBeDefined();
    await first.client.login({ username: "alice", password: "password-1" });
    first.client.connect();
    await world.clock.advance(1_000);
    expect(bob.messages.map((m) => m.content)).toEqual(["1", "still here"]);
    expect(first.client.messages(id).map((m) => m.seq)).toEqual([1, 2]);
  });

  it("belongs to one user", async () => {
    const { world, id, first } = await device();
    await world.clock.advance(1_000);
    first.client.endSession();
    await first.client.register({ username: "zoe", password: "password-1" });
    await world.clock.advance(1_000);
    expect(first.client.conversations()).toEqual([]);
    expect(first.client.conversation(id)).toBeUndefined();
  });
});

describe("before the first list after a reload", () => {
  it("an acknowledgement may be ahead of it", async () => {
    const { world, bob, id, first, reload } = await device();
    bob.client.send(id, "1");
    await world.clock.advance(1_000);
    world.reachable = false;
    first.wire.close(1006);
    await world.clock.advance(100);
    first.client.send(id, "2");
    const again = await reload(first);
    world.reachable = true;
    // The list is read first, but answered after the message.
    world.toClient = (frame, wire) => {
      if (frame["cmd"] !== 5 || wire.client !== "desk") return [frame];
      const stale = (frame["payload"] as object[]).map((one) => ({ ...one, max_seq: 1, read_seq: 0, unread: 1, last_message: null }));
      world.clock.after(50, () => wire.inject({ ...frame, payload: stale }));
      return [];
    };
    again.client.connect();
    await world.clock.advance(1_000);
    expect(again.client.messages(id).map((m) => m.content)).toEqual(["1", "2"]);
    expect(again.client.conversation(id)).toMatchObject({ maxSeq: 2, lastMessage: { content: "2" } });
  });

  it("what the device remembers late is shown late", async () => {
    const { world, bob, id, shelf, first, reload } = await device();
    bob.client.send(id, "1");
    await world.clock.advance(1_000);
    world.reachable = false;
    const load = shelf.load.bind(shelf);
    shelf.load = async (userId) => {
      await new Promise<void>((resolve) => void world.clock.after(10_000, resolve));
      return load(userId);
    };
    const again = await reload(first);
    again.client.connect();
    await world.clock.advance(5_000);
    expect(again.client.conversations()).toEqual([]);
    await world.clock.advance(10_000);
    expect(again.client.messages(id).map((m) => m.content)).toEqual(["1"]);
  });

  it("what the device remembers too late does not overwrite what the server said", async () => {
    const { world, bob, id, shelf, first, reload } = await device();
    bob.client.send(id, "1");
    await world.clock.advance(1_000);
    const load = shelf.load.bind(shelf);
    shelf.load = async (userId) => {
      const old = await load(userId);
      await new Promise<void>((resolve) => void world.clock.after(10_000, resolve));
      return old;
    };
    const left = await world.run(first.client.createGroup({ name: "left", members: [] }), 1_000);
    const again = await reload(first);
    world.server.conversations.delete(left.conversationId);
    again.client.connect();
    await world.clock.advance(5_000);
    bob.client.send(id, "2");
    await world.clock.advance(15_000);
    expect(again.client.conversations().map((c) => c.conversationId)).toEqual([id]);
    expect(again.seqs(id)).toEqual([2]);
    expect(again.client.conversation(id)).toMatchObject({ maxSeq: 2 });
  });
});

describe("an archive that is not true any more", () => {
  it("gives way to a server that counts from a lower seq", async () => {
    const { world, bob, id, first, reload } = await device();
    for (const text of ["1", "2", "3"]) bob.client.send(id, text);
    await world.clock.advance(500);
    const again = await reload(first);
    const conversation = world.server.conversations.get(id)!;
    conversation.messages.splice(0);
    world.silently(id, "bob", ["other 1"]);
    again.client.connect();
    await world.clock.advance(500);
    await world.run(again.client.loadOlder(id));
    expect(again.client.messages(id).map((m) => m.content)).toEqual(["other 1"]);
    world.silently(id, "bob", ["other 2"]);
    again.wire.inject({ cmd: 10, conversation_id: id, from_seq: 2 });
    await world.clock.advance(500);
    expect(again.messages.map((m) => m.content)).toEqual(["other 2"]);
  });

  it("gives way to a server that lost everything", async () => {
    const { world, bob, id, first, reload } = await device();
    for (const text of ["1", "2", "3"]) bob.client.send(id, text);
    await world.clock.advance(500);
    const again = await reload(first);
    world.server.conversations.get(id)!.messages.splice(0);
    again.client.connect();
    await world.clock.advance(500);
    expect(again.client.messages(id)).toEqual([]);
    const carol = await world.join("carol");
    await world.run(carol.client.join(id));
    carol.client.send(id, "a new start");
    await world.clock.advance(500);
    expect(again.messages.map((m) => [m.seq, m.content])).toEqual([[1, "a new start"]]);
  });

  it("gives way to a server with another message in the same place", async () => {
    const { world, bob, id, first, reload } = await device();
    for (const text of ["1", "2"]) bob.client.send(id, text);
    await world.clock.advance(500);
    const again = await reload(first);
    world.server.conversations.get(id)!.messages.splice(0);
    world.silently(id, "bob", ["other 1", "other 2"]);
    again.client.connect();
    await world.clock.advance(500);
    await world.run(again.client.loadOlder(id));
    expect(again.client.messages(id).map((m) => m.content)).toEqual(["other 1", "other 2"]);
    expect(again.events("history").length).toBeGreaterThan(0);
  });

  it.each([
    null,
    {},
    { info: {}, lastSeq: 1, messages: [] },
    { info: null, lastSeq: 1, messages: [] },
    { info: { conversationId: "x", name: "x", maxSeq: 1, readSeq: 0, unread: 0, lastActiveAtMs: 0 }, lastSeq: -1, messages: [] },
    { info: { conversationId: "x", name: "x", maxSeq: "1", readSeq: 0, unread: 0, lastActiveAtMs: 0 }, lastSeq: 1, messages: [] },
    {
      info: { conversationId: "x", name: "x", maxSeq: 5, readSeq: 0, unread: 0, lastActiveAtMs: 0 },
      lastSeq: 1,
      messages: [{ seq: 2, content: "beyond" }],
    },
    {
      info: { conversationId: "x", name: "x", maxSeq: 5, readSeq: 0, unread: 0, lastActiveAtMs: 0 },
      lastSeq: 5,
      messages: [{ seq: 3, content: "a" }, { seq: 2, content: "b" }],
    },
    {
      info: { conversationId: "x", name: "x", maxSeq: 5, readSeq: 0, unread: 0, lastActiveAtMs: 0 },
      lastSeq: 5,
      messages: [null],
    },
  ])("is left out where it is damaged (%#)", async (damaged) => {
    const { world, id, shelf, userId, first, reload } = await device();
    await world.clock.advance(1_000);
    shelf.users.get(userId)!.set("x", JSON.stringify(damaged));
    world.reachable = false;
    const again = await reload(first);
    expect(again.client.conversations().map((c) => c.conversationId)).toEqual([id]);
  });

  it("or cannot be read or written does not stop the client", async () => {
    const { world, bob, id, shelf, first, reload } = await device();
    shelf.fail = true;
    const again = await reload(first);
    again.client.connect();
    await world.clock.advance(500);
    bob.client.send(id, "1");
    await world.clock.advance(2_000);
    expect(again.messages.map((m) => m.content)).toEqual(["1"]);
    expect(again.events("warning").map((w) => w.name)).toContain("STORAGE");
    await again.client.logout();
  });

  it("or hangs delays the connection by two seconds at most", async () => {
    const { world, shelf, first, reload } = await device();
    shelf.hang = true;
    const again = await reload(first);
    again.client.connect();
    await world.clock.advance(2_200);
    expect(again.client.state.status).toBe("online");
  });
});
