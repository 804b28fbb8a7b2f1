import { describe, expect, it } from "vitest";
import { store, World } from "./world.js";

const upTo = (n: number, from = 1): number[] => Array.from({ length: n - from + 1 }, (_, i) => from + i);

describe("history", () => {
  const reopened = async (count: number, tuning = {}) => {
    const world = new World();
    const { bob, id } = await world.pair();
    world.silently(id, "bob", upTo(count).map(String));
    const alice = world.person("alice-again", { environment: { storage: store() }, deviceId: "again", tuning });
    await alice.client.login({ username: "alice", password: "password-1" });
    alice.client.connect();
    await world.clock.advance(300);
    return { world, alice, bob, id };
  };

  it("is not delivered as new on the first login", async () => {
    const { alice, id } = await reopened(30);
    expect(alice.messages).toEqual([]);
    expect(alice.client.messages(id)).toEqual([]);
    expect(alice.client.conversation(id)).toMatchObject({ unread: 30, maxSeq: 30, lastMessage: { content: "30" } });
    expect(alice.client.hasOlder(id)).toBeUndefined();
  });

  it("is read backwards, page by page, to its beginning", async () => {
    const { world, alice, id } = await reopened(25);
    expect(await world.run(alice.client.loadOlder(id, 10))).toBe(true);
    expect(alice.client.messages(id).map((m) => m.seq)).toEqual(upTo(25, 16));
    expect(await world.run(alice.client.loadOlder(id, 10))).toBe(true);
    expect(await world.run(alice.client.loadOlder(id, 10))).toBe(false);
    expect(alice.client.messages(id).map((m) => m.seq)).toEqual(upTo(25));
    expect(await world.run(alice.client.loadOlder(id, 10))).toBe(false);
    expect(alice.sent(3).map((f) => [f["cursor_seq"], f["direction"]])).toEqual([
      [26, "backward"],
      [16, "backward"],
      [6, "backward"],
    ]);
  });

  it("joins what arrives meanwhile without a hole", async () => {
    const { world, alice, bob, id } = await reopened(20);
    const loading = alice.client.loadOlder(id, 5);
    bob.client.send(id, "21");
    await world.run(loading);
    bob.client.send(id, "22");
    await world.clock.advance(200);
    expect(alice.client.messages(id).map((m) => m.seq)).toEqual(upTo(22, 16));
    expect(alice.seqs(id)).toEqual([21, 22]);
  });

  it("asked for twice is read once", async () => {
    const { world, alice, id } = await reopened(20);
    await world.run(Promise.all([alice.client.loadOlder(id, 5), alice.client.loadOlder(id, 5)]));
    expect(alice.sent(3)).toHaveLength(1);
    expect(alice.client.messages(id)).toHaveLength(5);
  });

  it("steps over seqs that do not exist", async () => {
    const { world, alice, id } = await reopened(20);
    world.server.conversations.get(id)!.messages.splice(10, 5);
    await world.run(alice.client.loadOlder(id, 8));
    await world.run(alice.client.loadOlder(id, 50));
    expect(alice.client.messages(id).map((m) => m.seq)).toEqual([...upTo(10), ...upTo(20, 16)]);
    expect(alice.client.hasOlder(id)).toBe(false);
  });

  it("of an empty conversation asks nobody", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    expect(await world.run(alice.client.loadOlder(id))).toBe(false);
    expect(alice.sent(3)).toEqual([]);
  });

  it("of an unknown conversation is refused", async () => {
    const world = new World();
    const alice = await world.join("alice");
    await expect(alice.client.loadOlder("nowhere")).rejects.toMatchObject({ name: "CONVERSATION_NOT_FOUND" });
  });

  it("reports a broken answer, and can be asked for again", async () => {
    const { world, alice, id } = await reopened(20);
    world.toClient = (frame) => (frame["cmd"] === 3 ? [{ ...frame, payload: 7 }] : [frame]);
    await expect(world.run(alice.client.loadOlder(id))).rejects.toMatchObject({ name: "BAD_ANSWER" });
    world.toClient = (frame) => [frame];
    await world.run(alice.client.loadOlder(id));
    expect(alice.client.messages(id)).toHaveLength(20);
  });

  it("waits for the connection", async () => {
    const { world, alice, id } = await reopened(20);
    world.reachable = false;
    alice.wire.close(1006);
    await world.clock.advance(500);
    const loading = alice.client.loadOlder(id, 5);
    await world.clock.advance(2_000);
    world.reachable = true;
    await world.run(loading, 20_000);
    expect(alice.client.messages(id)).toHaveLength(5);
  });

  it("fails with a clear error when there is no connection for too long", async () => {
    const { world, alice, id } = await reopened(20);
    world.reachable = false;
    alice.wire.close(1006);
    await expect(world.run(alice.client.loadOlder(id, 5), 60_000)).rejects.toMatchObject({
      name: "NOT_CONNECTED",
      temporary: true,
    });
  });

  it("in memory is bounded; the oldest come back by loadOlder", async () => {
    const { world, alice, bob, id } = await reopened(0, { historyLimit: 20 });
    for (let i = 1; i <= 50; i++) bob.client.send(id, String(i));
    await world.clock.advance(3_000);
    expect(alice.seqs(id)).toEqual(upTo(50));
    const kept = alice.client.messages(id);
    expect(kept.length).toBeLessThanOrEqual(20);
    expect(kept.at(-1)!.seq).toBe(50);
    expect(alice.client.hasOlder(id)).toBe(true);
    await world.run(alice.client.loadOlder(id, 5));
    const seqs = alice.client.messages(id).map((m) => m.seq);
    expect(seqs).toEqual(upTo(50, seqs[0]));
    expect(seqs).toHaveLength(kept.length + 5);
  });
});

describe("conversations", () => {
  it("are listed by recent activity", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    await world.clock.advance(1_000);
    const later = await world.run(alice.client.createGroup({ name: "later", members: ["bob"] }));
    expect(bob.client.conversations().map((c) => c.conversationId)).toEqual([later.conversationId, id]);
    await world.clock.advance(1_000);
    alice.client.send(id, "up");
    await world.clock.advance(200);
    expect(bob.client.conversations().map((c) => c.conversationId)).toEqual([id, later.conversationId]);
    expect(bob.client.conversations()[0]).toMatchObject({ unread: 1, lastMessage: { content: "up" } });
  });

  it("are made direct, once per pair", async () => {
    const world = new World();
    const { alice, bob } = await world.pair();
    const one = await world.run(alice.client.createDirect("bob"));
    const two = await world.run(bob.client.createDirect("alice"));
    expect(two.conversationId).toBe(one.conversationId);
    expect(one).toMatchObject({ type: "direct", name: "bob" });
    expect(two.name).toBe("alice");
  });

  it("refuse unknown users with the server's words", async () => {
    const world = new World();
    const { alice } = await world.pair();
    await expect(world.run(alice.client.createDirect("nobody"))).rejects.toMatchObject({
      name: "USER_NOT_FOUND",
      code: 405,
      temporary: false,
      detail: "no user named nobody",
    });
  });

  it("appear for members who were added", async () => {
    const world = new World();
    const { alice, bob } = await world.pair();
    const group = await world.run(alice.client.createGroup({ name: "three", members: ["bob"], conversationId: "group_3" }));
    expect(group).toMatchObject({ conversationId: "group_3", role: "owner", memberCount: 2 });
    expect(bob.client.conversation("group_3")).toMatchObject({ name: "three", role: "member" });
    expect(bob.events("membership").at(-1)).toMatchObject({ event: "created", username: "alice" });
  });

  it("are not made twice when the answer gets lost", async () => {
    const world = new World();
    const { alice } = await world.pair();
    const before = world.server.conversations.size;
    world.toClient = (frame) => (frame["cmd"] === 6 ? [] : [frame]);
    const made = alice.client.createGroup({ name: "once", members: [] });
    await expect(world.run(made, 60_000)).rejects.toMatchObject({ name: "TIMEOUT" });
    expect(world.server.conversations.size).toBe(before + 1);
    expect(alice.sent(6)).toHaveLength(2);
  });

  it("are joined and left", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    const carol = await world.join("carol");
    world.silently(id, "bob", ["old"]);
    const joined = await world.run(carol.client.join(id));
    expect(joined).toMatchObject({ memberCount: 3, maxSeq: 1 });
    expect(alice.client.conversation(id)?.memberCount).toBe(3);
    carol.client.send(id, "hello");
    await world.clock.advance(1_000);
    expect(carol.messages.map((m) => m.content)).toEqual(["hello"]);
    expect(bob.messages.map((m) => m.content)).toEqual(["old", "hello"]);
    await world.run(carol.client.leave(id));
    expect(carol.client.conversation(id)).toBeUndefined();
    expect(carol.client.messages(id)).toEqual([]);
    expect(alice.client.conversation(id)?.memberCount).toBe(2);
  });

  it("are left even when the first answer gets lost", async () => {
    const world = new World();
    const { bob, id } = await world.pair();
    let lost = 1;
    world.toClient = (frame) => (frame["cmd"] === 8 && lost-- > 0 ? [] : [frame]);
    await world.run(bob.client.leave(id), 40_000);
    expect(bob.sent(8).length).toBe(2);
    expect(bob.client.conversation(id)).toBeUndefined();
  });

  it("left on another device disappear here", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    alice.wire.inject({
      cmd: 12,
      conversation_id: id,
      payload: { event: "left", user_id: alice.client.user!.userId, username: "alice" },
    });
    expect(alice.client.conversation(id)).toBeUndefined();
  });

  it("show their members, paged", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const first = await world.run(alice.client.members(id, 0, 1));
    expect(first).toMatchObject({ members: [{ username: "alice", role: "owner" }], hasMore: true });
    const second = await world.run(alice.client.members(id, first.nextCursor, 1));
    expect(second).toMatchObject({ members: [{ username: "bob", role: "member" }], hasMore: false });
  });

  it("refuse to show members to others", async () => {
    const world = new World();
    const { id } = await world.pair();
    const carol = await world.join("carol");
    await expect(world.run(carol.client.members(id))).rejects.toMatchObject({ name: "NOT_A_MEMBER" });
  });

  it("created while the list is read are not lost", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    alice.wire.close(1006);
    world.toClient = (frame) => {
      // The page was written before the conversation existed.
      if (frame["cmd"] !== 5) return [frame];
      return [{ ...frame, payload: (frame["payload"] as Array<{ conversation_id: string }>).filter((c) => c.conversation_id === id) }];
    };
    const online = (): boolean => alice.client.state.status === "online";
    while (online()) await world.clock.advance(1);
    while (!online()) await world.clock.advance(1);
    await world.run(alice.client.createGroup({ name: "new", members: [] }), 1_000);
    expect(alice.client.conversations().map((c) => c.name).sort()).toEqual(["both", "new"]);
  });
});

describe("calls", () => {
  it("are repeated after RATE_LIMITED, not before the given delay", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    let refused = 0;
    world.toServer = (frame, wire) => {
      if (frame["cmd"] !== 9 || refused > 0) return [frame];
      refused += 1;
      const error = { name: "RATE_LIMITED", temporary: true, retry_after_ms: 2_000, detail: "" };
      world.clock.after(5, () => wire.inject({ cmd: 9, id: frame["id"], code: 429, error }));
      return [];
    };
    const asked = alice.client.members(id);
    await world.clock.advance(1_900);
    expect(alice.sent(9)).toHaveLength(1);
    const page = await world.run(asked, 1_000);
    expect(page.members).toHaveLength(2);
    expect(alice.sent(9)).toHaveLength(2);
  });

  it("give up in the end", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const error = { name: "BUSY", temporary: true, retry_after_ms: 0, detail: "full" };
    world.toClient = (frame) => (frame["cmd"] === 9 ? [{ cmd: 9, id: frame["id"], code: 503, error }] : [frame]);
    await expect(world.run(alice.client.members(id), 60_000)).rejects.toMatchObject({ name: "BUSY" });
  });

  it("go on after a lost connection", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const asked = alice.client.members(id);
    alice.wire.close(1006);
    expect((await world.run(asked, 5_000)).members).toHaveLength(2);
  });

  it("answers are matched by id, in whatever order they come", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const held: Array<Record<string, unknown>> = [];
    world.toClient = (frame) => {
      if (frame["cmd"] !== 9) return [frame];
      held.push(frame);
      return held.length === 3 ? [held[2]!, held[0]!, held[1]!] : [];
    };
    const pages = Promise.all([alice.client.members(id, 0, 1), alice.client.members(id, 1, 1), alice.client.members(id, 0, 2)]);
    const names = (await world.run(pages)).map((page) => page.members.map((m) => m.username));
    expect(names).toEqual([["alice"], ["bob"], ["alice", "bob"]]);
  });
});

describe("read marks", () => {
  it("clear the counter at once and reach the server gathered", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    for (let i = 1; i <= 5; i++) {
      alice.client.send(id, String(i));
      await world.clock.advance(50);
      bob.client.markRead(id);
      expect(bob.client.conversation(id)?.unread).toBe(0);
    }
    await world.clock.advance(2_000);
    expect(bob.sent(13).length).toBeLessThanOrEqual(2);
    expect(bob.sent(13).at(-1)).toMatchObject({ conversation_id: id, read_seq: 5 });
  });

  it("do not go backwards, and are not repeated", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    for (let i = 1; i <= 5; i++) alice.client.send(id, String(i));
    await world.clock.advance(500);
    bob.client.markRead(id, 3);
    expect(bob.client.conversation(id)?.unread).toBe(2);
    await world.clock.advance(2_000);
    bob.client.markRead(id, 2);
    bob.client.markRead(id, 3);
    await world.clock.advance(2_000);
    expect(bob.sent(13)).toHaveLength(1);
  });

  it("made offline are sent later, and the stale counter of the server is not believed meanwhile", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    alice.client.send(id, "1");
    await world.clock.advance(200);
    world.reachable = false;
    bob.wire.close(1006);
    await world.clock.advance(100);
    bob.client.markRead(id);
    await world.clock.advance(5_000);
    world.reachable = true;
    await world.clock.advance(20_000);
    expect(bob.client.conversation(id)?.unread).toBe(0);
    expect(bob.sent(13)).toHaveLength(1);
    const fresh = await world.join("fresh");
    expect(fresh.client.state.status).toBe("online");
    expect(world.server.conversations.get(id)!.members.get(bob.client.user!.userId)?.readSeq).toBe(1);
  });

  it("counters agree with the server after any catch-up", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    alice.client.send(id, "1");
    await world.clock.advance(200);
    bob.wire.close(1006);
    world.silently(id, "alice", ["2", "3"]);
    await world.clock.advance(2_000);
    alice.client.send(id, "4");
    await world.clock.advance(500);
    expect(bob.seqs(id)).toEqual([1, 2, 3, 4]);
    expect(bob.client.conversation(id)?.unread).toBe(4);
  });

  it("are not needed for what the user answered: who writes has read", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    alice.client.send(id, "1");
    alice.client.send(id, "2");
    await world.clock.advance(500);
    expect(bob.client.conversation(id)?.unread).toBe(2);
    bob.client.send(id, "3");
    await world.clock.advance(500);
    expect(bob.client.conversation(id)).toMatchObject({ unread: 0, readSeq: 3 });
    alice.client.send(id, "4");
    await world.clock.advance(500);
    expect(bob.client.conversation(id)?.unread).toBe(1);
    bob.wire.close(1006);
    await world.clock.advance(5_000);
    expect(bob.client.conversation(id)).toMatchObject({ unread: 1, readSeq: 3 });
    expect(bob.sent(13)).toEqual([]);
  });

  it("refused for good are dropped", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    alice.client.send(id, "1");
    await world.clock.advance(200);
    world.server.conversations.get(id)!.members.delete(bob.client.user!.userId);
    bob.client.markRead(id);
    await world.clock.advance(60_000);
    expect(bob.sent(13)).toHaveLength(1);
    expect(bob.events("warning").map((w) => w.name)).toContain("READ_FAILED");
  });

  it("of unknown conversations do nothing", async () => {
    const world = new World();
    const { bob } = await world.pair();
    bob.client.markRead("nowhere");
    await world.clock.advance(2_000);
    expect(bob.sent(13)).toEqual([]);
  });
});
