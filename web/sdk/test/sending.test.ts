import { describe, expect, it } from "vitest";
import type { OutgoingMessage } from "../src/types.js";
import { store, World, type Person, type Tamper } from "./world.js";

const states = (person: Person): string[] => person.events("outgoing").map((item) => item.state);
const refuse =
  (error: { name: string; temporary: boolean; retry_after_ms?: number }, code: number, times: number): Tamper =>
  (frame) => {
    if (frame["cmd"] !== 2 || times-- <= 0) return [frame];
    return [{ cmd: 2, id: frame["id"], msg_id: frame["msg_id"], code, error: { detail: "", retry_after_ms: 0, ...error } }];
  };

/** Lets the server refuse sends before it looks at them. */
function refuseSends(world: World, error: Parameters<typeof refuse>[0], code: number, times: number): void {
  let left = times;
  world.toServer = (frame, wire) => {
    if (frame["cmd"] !== 2 || left <= 0) return [frame];
    left -= 1;
    const answer = refuse(error, code, 1)(frame, wire)[0]!;
    world.clock.after(world.latencyMs, () => wire.open && wire.inject(answer));
    return [];
  };
}

describe("sending", () => {
  it("goes from sending to sent, and is delivered to both in the same place", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    const item = alice.client.send(id, "Hello World");
    expect(item).toMatchObject({ conversationId: id, content: "Hello World", msgType: 1, state: "sending" });
    expect(alice.client.outgoing(id)).toEqual([item]);
    await world.clock.advance(100);
    expect(states(alice)).toEqual(["sending", "sent"]);
    expect(alice.client.outgoing(id)).toEqual([]);
    expect(alice.messages).toEqual(bob.messages);
    expect(bob.messages).toMatchObject([{ seq: 1, sender: "alice", content: "Hello World", msgId: item.msgId }]);
  });

  it("names the message by a UUIDv7 made before it is sent", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const item = alice.client.send(id, "x", 4);
    expect(item.msgId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/);
    expect(alice.sent(2)[0]).toEqual({
      cmd: 2,
      id: expect.any(Number) as unknown,
      msg_id: item.msgId,
      conversation_id: id,
      payload: { content: "x", msg_type: 4 },
    });
  });

  it("settles whenSent with the place in the conversation", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const { msgId } = alice.client.send(id, "x");
    const both = Promise.all([alice.client.whenSent(msgId), alice.client.whenSent(msgId)]);
    expect((await world.run(both)).map((one) => one.seq)).toEqual([1, 1]);
    await expect(alice.client.whenSent("nothing")).rejects.toMatchObject({ name: "UNKNOWN_MESSAGE" });
  });

  it("keeps order: one at a time per conversation, others meanwhile", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    const other = await world.run(alice.client.createGroup({ name: "other", members: ["bob"] }));
    for (let i = 0; i < 5; i++) alice.client.send(id, `a${i}`);
    alice.client.send(other.conversationId, "b");
    expect(alice.sent(2).map((f) => (f["payload"] as { content: string }).content)).toEqual(["a0", "b"]);
    await world.clock.advance(500);
    expect(bob.messages.filter((m) => m.conversationId === id).map((m) => m.content)).toEqual(["a0", "a1", "a2", "a3", "a4"]);
  });

  it("gives every request its own id", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    for (let i = 0; i < 5; i++) alice.client.send(id, String(i));
    await world.clock.advance(500);
    const ids = alice.wire.sent.map((f) => f["id"]).filter((one) => one !== undefined);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it("carries NUL, markup and emoji byte-exact", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    const text = "a\u0000b <script>alert('x')</script> ' OR 1=1 -- 👩‍👩‍👧 \u202e \\n";
    alice.client.send(id, text);
    await world.clock.advance(200);
    expect(bob.messages[0]!.content).toBe(text);
    expect(alice.messages[0]!.content).toBe(text);
  });

  it("replaces lone surrogates, which have no UTF-8 form", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    alice.client.send(id, "a\ud800b😀\udc00");
    await world.clock.advance(200);
    expect(bob.messages[0]!.content).toBe("a\ufffdb😀\ufffd");
  });
});

describe("permanent refusals", () => {
  it("surface, and do not block the next message", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    const big = alice.client.send(id, "x".repeat(5000));
    alice.client.send(id, "small");
    const settled = alice.client.whenSent(big.msgId);
    await expect(world.run(settled)).rejects.toMatchObject({ name: "TOO_LARGE", code: 413, temporary: false });
    expect(alice.client.outgoing(id)).toMatchObject([{ msgId: big.msgId, state: "failed", error: { name: "TOO_LARGE" } }]);
    expect(bob.messages.map((m) => m.content)).toEqual(["small"]);
    await expect(alice.client.whenSent(big.msgId)).rejects.toMatchObject({ name: "TOO_LARGE" });
  });

  it("are not repeated by themselves", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    world.server.conversations.get(id)!.members.delete(alice.client.user!.userId);
    alice.client.send(id, "x");
    await world.clock.advance(600_000);
    expect(alice.sent(2)).toHaveLength(1);
    expect(alice.client.outgoing(id)[0]?.error?.name).toBe("NOT_A_MEMBER");
  });

  it("can be retried by hand, with the same id", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    refuseSends(world, { name: "FORBIDDEN", temporary: false }, 403, 1);
    const { msgId } = alice.client.send(id, "x");
    await world.clock.advance(100);
    expect(alice.client.outgoing(id)[0]?.state).toBe("failed");
    expect(alice.client.retry(msgId)).toBe(true);
    await world.clock.advance(100);
    expect(states(alice)).toEqual(["sending", "failed", "sending", "sent"]);
    expect(new Set(alice.sent(2).map((f) => f["msg_id"]))).toEqual(new Set([msgId]));
    expect(bob.seqs(id)).toEqual([1]);
    expect(alice.client.retry(msgId)).toBe(false);
  });

  it("can be discarded", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const { msgId } = alice.client.send(id, "x".repeat(5000));
    expect(alice.client.discard(msgId)).toBe(false);
    await world.clock.advance(100);
    expect(alice.client.discard(msgId)).toBe(true);
    expect(alice.client.outgoing(id)).toEqual([]);
  });

  it("of a message no server would read are found before it is sent", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const item = alice.client.send(id, "x".repeat(100_000));
    expect(item).toMatchObject({ state: "failed", error: { name: "TOO_LARGE", code: 0 } });
    await world.clock.advance(1000);
    expect(alice.sent(2)).toEqual([]);
  });

  it("match by request id when the answer lacks the message's id", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    world.toServer = (frame, wire) => {
      if (frame["cmd"] !== 2) return [frame];
      const error = { name: "BAD_REQUEST", temporary: false, retry_after_ms: 0, detail: "" };
      world.clock.after(5, () => wire.inject({ cmd: 0, code: 400, id: frame["id"], error }));
      return [];
    };
    alice.client.send(id, "x");
    world.toClient = (frame) => [frame];
    await world.clock.advance(100);
    // Heartbeat answers are the link's own: this one is not taken for a refusal, and the send times out.
    expect(alice.client.outgoing(id)[0]?.state).toBe("sending");
    world.toServer = (frame, wire) => {
      if (frame["cmd"] !== 2) return [frame];
      const error = { name: "BAD_REQUEST", temporary: false, retry_after_ms: 0, detail: "" };
      world.clock.after(5, () => wire.inject({ cmd: null, code: 400, id: frame["id"], error }));
      return [];
    };
    await world.clock.advance(20_000);
    expect(alice.client.outgoing(id)[0]).toMatchObject({ state: "failed", error: { name: "BAD_REQUEST" } });
  });
});

describe("temporary refusals", () => {
  it("RATE_LIMITED waits as long as the server says, then goes on in order", async () => {
    const world = new World({ rate: { perSecond: 1, burst: 2 } });
    const { alice, bob, id } = await world.pair();
    const start = world.clock.now();
    for (let i = 0; i < 6; i++) alice.client.send(id, String(i));
    await world.clock.advance(10_000);
    expect(bob.messages.map((m) => m.content)).toEqual(["0", "1", "2", "3", "4", "5"]);
    const last = bob.messages.at(-1)!.createdAtMs - start;
    expect(last).toBeGreaterThanOrEqual(3_900);
    expect(last).toBeLessThan(4_500);
    // One refusal per message at most: the client did not knock in between.
    expect(alice.sent(2).length).toBeLessThanOrEqual(6 + 4);
    expect(states(alice).filter((s) => s === "failed")).toEqual([]);
  });

  it("hold for the whole connection", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const other = await world.run(alice.client.createGroup({ name: "other", members: [] }));
    refuseSends(world, { name: "RATE_LIMITED", temporary: true, retry_after_ms: 2_000 }, 429, 1);
    alice.client.send(id, "a");
    await world.clock.advance(100);
    alice.client.send(other.conversationId, "b");
    await world.clock.advance(1_000);
    expect(alice.sent(2)).toHaveLength(1);
    await world.clock.advance(1_500);
    expect(alice.messages.map((m) => m.content).sort()).toEqual(["a", "b"]);
  });

  it("BUSY without a delay backs off, and never gives up", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    refuseSends(world, { name: "BUSY", temporary: true }, 503, 20);
    alice.client.send(id, "x");
    await world.clock.advance(300_000);
    expect(states(alice)).toEqual(["sending", "sent"]);
    expect(bob.seqs(id)).toEqual([1]);
    expect(new Set(alice.sent(2).map((f) => f["msg_id"])).size).toBe(1);
  });

  it("INTERNAL is tried again a bounded number of times", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    refuseSends(world, { name: "INTERNAL", temporary: true }, 500, 1000);
    alice.client.send(id, "x");
    await world.clock.advance(300_000);
    expect(alice.sent(2)).toHaveLength(8);
    expect(alice.client.outgoing(id)[0]).toMatchObject({ state: "failed", error: { name: "INTERNAL" } });
  });

  it("UNAUTHENTICATED renews the login and sends again", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    refuseSends(world, { name: "UNAUTHENTICATED", temporary: false }, 401, 1);
    world.restCalls = [];
    alice.client.send(id, "x");
    await world.clock.advance(1000);
    expect(world.restCalls).toEqual(["/api/v1/token/refresh"]);
    expect(states(alice)).toEqual(["sending", "sent"]);
    expect(bob.seqs(id)).toEqual([1]);
  });
});

describe("unknown outcomes", () => {
  it("a lost answer is asked for again with the same id, with one effect", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    let lost = 2;
    world.toClient = (frame) => (frame["cmd"] === 2 && lost-- > 0 ? [] : [frame]);
    alice.client.send(id, "x");
    await world.clock.advance(60_000);
    expect(alice.sent(2)).toHaveLength(3);
    expect(new Set(alice.sent(2).map((f) => f["msg_id"])).size).toBe(1);
    expect(bob.seqs(id)).toEqual([1]);
    expect(alice.seqs(id)).toEqual([1]);
    expect(states(alice)).toEqual(["sending", "sent"]);
  });

  it("an answer without a seq is no answer", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    let broken = 1;
    world.toClient = (frame) => (frame["cmd"] === 2 && broken-- > 0 ? [{ ...frame, seq: "one" }] : [frame]);
    alice.client.send(id, "x");
    await world.clock.advance(100);
    expect(states(alice)).toEqual(["sending"]);
    await world.clock.advance(30_000);
    expect(states(alice)).toEqual(["sending", "sent"]);
  });

  it("a doubled answer counts once", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    world.toClient = (frame) => (frame["cmd"] === 2 ? [frame, frame] : [frame]);
    alice.client.send(id, "x");
    alice.client.send(id, "y");
    await world.clock.advance(1000);
    expect(states(alice)).toEqual(["sending", "sending", "sent", "sent"]);
    expect(alice.seqs(id)).toEqual([1, 2]);
  });

  it("the connection breaks after the server stored it: the catch-up settles it", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    world.toClient = (frame, wire) => {
      if (frame["cmd"] !== 2) return [frame];
      wire.close(1006);
      return [];
    };
    alice.client.send(id, "x");
    await world.clock.advance(20);
    // The server never answers sends again, yet the message must not stay "sending".
    world.toServer = (frame) => (frame["cmd"] === 2 ? [] : [frame]);
    world.toClient = (frame) => [frame];
    await world.clock.advance(5_000);
    expect(states(alice)).toEqual(["sending", "sent"]);
    expect(alice.client.outgoing(id)).toEqual([]);
    expect(bob.seqs(id)).toEqual([1]);
  });
});

describe("the outbox", () => {
  it("survives a reconnect: sent while offline, delivered after, same ids, same order", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    world.reachable = false;
    alice.wire.close(1006);
    await world.clock.advance(1_000);
    const items = ["a", "b", "c"].map((text) => alice.client.send(id, text));
    await world.clock.advance(60_000);
    expect(alice.client.outgoing(id).map((one) => one.state)).toEqual(["sending", "sending", "sending"]);
    world.reachable = true;
    await world.clock.advance(35_000);
    expect(alice.client.outgoing(id)).toEqual([]);
    expect(bob.messages.map((m) => m.msgId)).toEqual(items.map((one) => one.msgId));
  });

  it("survives a reload", async () => {
    const world = new World();
    const { bob, id } = await world.pair();
    const storage = store();
    const carol = await world.join("carol", { environment: { storage } });
    await world.run(carol.client.join(id));
    world.reachable = false;
    carol.wire.close(1006);
    await world.clock.advance(1_000);
    const item = carol.client.send(id, "before the reload");
    carol.client.disconnect();
    world.reachable = true;
    const again = world.person("carol", { environment: { storage } });
    expect(again.client.user?.username).toBe("carol");
    expect(again.client.outgoing(id)).toEqual([item]);
    again.client.connect();
    await world.clock.advance(1_000);
    expect(bob.messages.map((m) => m.msgId)).toEqual([item.msgId]);
    expect(storage.get(`outbox.${again.client.user!.userId}`)).toBeNull();
  });

  it("sends everything in flight again after the connection broke, with one effect each", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    for (let round = 0; round < 5; round++) {
      alice.client.send(id, `m${round}`);
      await world.clock.advance(7);
      alice.wire.close(1006);
      await world.clock.advance(3_000);
    }
    await world.clock.advance(60_000);
    expect(bob.messages.map((m) => m.content)).toEqual(["m0", "m1", "m2", "m3", "m4"]);
    expect(bob.seqs(id)).toEqual([1, 2, 3, 4, 5]);
    expect(alice.seqs(id)).toEqual([1, 2, 3, 4, 5]);
  });

  it("is emptied by logout, and its waiters are told", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    alice.client.disconnect();
    const item: OutgoingMessage = alice.client.send(id, "never sent");
    const settled = alice.client.whenSent(item.msgId);
    settled.catch(() => {});
    await world.run(alice.client.logout());
    await expect(settled).rejects.toMatchObject({ name: "LOGGED_OUT" });
    await world.run(alice.client.login({ username: "alice", password: "password-1" }));
    alice.client.connect();
    await world.clock.advance(1_000);
    expect(world.server.conversations.get(id)!.messages).toEqual([]);
  });
});
