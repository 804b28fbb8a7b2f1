import { describe, expect, it } from "vitest";
import { store, World } from "./world.js";

const isPush = (frame: Record<string, unknown>): boolean => frame["cmd"] === 4;
const pushSeq = (frame: Record<string, unknown>): number => (frame["payload"] as { seq: number }).seq;
const upTo = (n: number, from = 1): number[] => Array.from({ length: n - from + 1 }, (_, i) => from + i);

describe("pushes", () => {
  it("out of order are delivered in order, without a pull", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    const held: Array<Record<string, unknown>> = [];
    world.toClient = (frame, wire) => {
      if (!isPush(frame) || wire !== bob.wire) return [frame];
      held.push(frame);
      return held.length === 3 ? held.splice(0).reverse() : [];
    };
    for (const text of ["a", "b", "c"]) alice.client.send(id, text);
    await world.clock.advance(1_000);
    expect(bob.messages.map((m) => m.content)).toEqual(["a", "b", "c"]);
    expect(bob.sent(3)).toEqual([]);
  });

  it("doubled are delivered once", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    world.toClient = (frame) => (isPush(frame) ? [frame, frame, frame] : [frame]);
    for (const text of ["a", "b", "c"]) alice.client.send(id, text);
    await world.clock.advance(1_000);
    expect(bob.seqs(id)).toEqual([1, 2, 3]);
  });

  it("lost leave a hole, which is pulled from the last contiguous seq", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    alice.client.send(id, "1");
    await world.clock.advance(100);
    world.toClient = (frame) => (isPush(frame) && pushSeq(frame) < 4 ? [] : [frame]);
    for (const text of ["2", "3", "4"]) alice.client.send(id, text);
    await world.clock.advance(150);
    expect(bob.seqs(id)).toEqual([1]);
    await world.clock.advance(1_000);
    expect(bob.messages.map((m) => m.content)).toEqual(["1", "2", "3", "4"]);
    expect(bob.sent(3)).toMatchObject([{ conversation_id: id, cursor_seq: 1, direction: "forward" }]);
  });

  it("that arrive while the hole is pulled are not delivered twice", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    world.toClient = (frame) => {
      if (isPush(frame) && pushSeq(frame) === 1) return [];
      return frame["cmd"] === 3 ? [frame, frame] : [frame];
    };
    alice.client.send(id, "1");
    alice.client.send(id, "2");
    for (let i = 3; i <= 30; i++) {
      await world.clock.advance(17);
      alice.client.send(id, String(i));
    }
    await world.clock.advance(2_000);
    expect(bob.seqs(id)).toEqual(upTo(30));
  });

  it("overtaken by an own acknowledgement come first all the same", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    world.toClient = (frame, wire) => {
      if (!isPush(frame) || wire !== alice.wire) return [frame];
      world.clock.after(100, () => wire.inject(frame));
      return [];
    };
    bob.client.send(id, "theirs");
    await world.clock.advance(12);
    const own = alice.client.send(id, "mine");
    await world.clock.advance(50);
    expect(alice.messages).toEqual([]);
    expect(alice.client.outgoing(id)).toMatchObject([{ msgId: own.msgId, state: "sent", seq: 2 }]);
    await world.clock.advance(100);
    expect(alice.messages.map((m) => m.content)).toEqual(["theirs", "mine"]);
    expect(alice.client.outgoing(id)).toEqual([]);
  });

  it("of an own other device are delivered, and settle nothing here", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    const phone = world.person("phone", { deviceId: "phone", environment: { storage: store() } });
    await phone.client.login({ username: "alice", password: "password-1" });
    phone.client.connect();
    await world.clock.advance(200);
    alice.client.send(id, "from the desk");
    await world.clock.advance(200);
    expect(phone.messages.map((m) => m.content)).toEqual(["from the desk"]);
    expect(phone.client.conversation(id)?.unread).toBe(0);
  });

  it("with a message id of ours but another's name settle nothing", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    world.toServer = (frame) => (frame["cmd"] === 2 ? [] : [frame]);
    const item = alice.client.send(id, "mine");
    alice.wire.inject({
      cmd: 4,
      conversation_id: id,
      payload: { seq: 1, msg_id: item.msgId, sender_id: "666", sender: "mallory", content: "forged" },
    });
    await world.clock.advance(100);
    expect(alice.client.outgoing(id)).toMatchObject([{ state: "sending" }]);
  });

  it("of an unknown conversation bring it onto the list", async () => {
    const world = new World();
    const { alice, bob } = await world.pair();
    // The event that would announce the new conversation gets lost.
    world.toClient = (frame) => (frame["cmd"] === 12 ? [] : [frame]);
    const direct = await world.run(alice.client.createDirect("bob"));
    expect(bob.client.conversation(direct.conversationId)).toBeUndefined();
    alice.client.send(direct.conversationId, "hi");
    alice.client.send(direct.conversationId, "there");
    await world.clock.advance(500);
    expect(bob.client.conversation(direct.conversationId)).toMatchObject({ type: "direct", name: "alice", unread: 2 });
    expect(bob.messages.map((m) => m.content)).toEqual(["hi", "there"]);
  });

  it("of a new conversation whose first were lost are completed from its start", async () => {
    const world = new World();
    const { alice, bob } = await world.pair();
    world.toClient = (frame) => (frame["cmd"] === 12 || (isPush(frame) && pushSeq(frame) < 3) ? [] : [frame]);
    const direct = await world.run(alice.client.createDirect("bob"));
    for (const text of ["1", "2", "3"]) alice.client.send(direct.conversationId, text);
    await world.clock.advance(2_000);
    expect(bob.messages.map((m) => m.content)).toEqual(["1", "2", "3"]);
  });

  it("of a conversation that is not ours leave no trace", async () => {
    const world = new World();
    const { bob } = await world.pair();
    bob.wire.inject({ cmd: 4, conversation_id: "elsewhere", payload: { seq: 9, content: "x" } });
    await world.clock.advance(2_000);
    expect(bob.messages).toEqual([]);
    expect(bob.client.conversations().map((c) => c.conversationId)).not.toContain("elsewhere");
  });
});

describe("pulls", () => {
  it("go on page by page until nothing is missing", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair({ tuning: { pullLimit: 10 } });
    world.silently(id, "bob", upTo(95).map(String));
    bob.client.send(id, "96");
    await world.clock.advance(3_000);
    expect(alice.seqs(id)).toEqual(upTo(96));
    expect(alice.sent(3).map((f) => f["cursor_seq"])).toEqual([0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
  });

  it("step over seqs the server does not have", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    world.silently(id, "bob", upTo(9).map(String));
    const { messages } = world.server.conversations.get(id)!;
    messages.splice(3, 2);
    bob.client.send(id, "10");
    await world.clock.advance(2_000);
    expect(alice.seqs(id)).toEqual([1, 2, 3, 6, 7, 8, 9, 10]);
    const pulls = alice.sent(3).length;
    await world.clock.advance(60_000);
    expect(alice.sent(3)).toHaveLength(pulls);
  });

  it("that do not show the announced message yet are repeated, ever more slowly", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    let blind = true;
    world.toClient = (frame) =>
      frame["cmd"] === 3 && blind ? [{ ...frame, payload: [], next_cursor_seq: 0, has_more: false }] : [frame];
    world.silently(id, "bob", ["1", "2"]);
    bob.client.send(id, "3");
    await world.clock.advance(30_000);
    expect(alice.messages).toEqual([]);
    expect(alice.sent(3).length).toBeGreaterThan(3);
    expect(alice.sent(3).length).toBeLessThan(40);
    blind = false;
    await world.clock.advance(11_000);
    expect(alice.seqs(id)).toEqual([1, 2, 3]);
  });

  it("survive refusals, timeouts and broken pages", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    let n = 0;
    world.toClient = (frame) => {
      if (frame["cmd"] !== 3) return [frame];
      n += 1;
      const error = { name: n === 1 ? "RATE_LIMITED" : "INTERNAL", temporary: true, retry_after_ms: 300, detail: "" };
      if (n <= 2) return [{ cmd: 3, id: frame["id"], code: n === 1 ? 429 : 500, error }];
      if (n === 3) return [];
      if (n === 4) return [{ ...frame, payload: "?" }];
      if (n === 5) return [{ ...frame, payload: [null, ...(frame["payload"] as unknown[])] }];
      return [frame];
    };
    world.silently(id, "bob", ["1", "2"]);
    bob.client.send(id, "3");
    await world.clock.advance(60_000);
    expect(alice.seqs(id)).toEqual([1, 2, 3]);
    expect(n).toBeGreaterThanOrEqual(5);
  });

  it("refused because we are no member any more drop the conversation", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    world.server.conversations.get(id)!.members.delete(alice.client.user!.userId);
    alice.wire.inject({ cmd: 4, conversation_id: id, payload: { seq: 5, content: "late" } });
    await world.clock.advance(2_000);
    expect(alice.client.conversation(id)).toBeUndefined();
    expect(alice.events("conversation").at(-1)).toEqual({ conversationId: id, removed: true });
  });

  it("refused for good are reported, and the next push tries again", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    const error = { name: "BAD_REQUEST", temporary: false, retry_after_ms: 0, detail: "" };
    let refuse = true;
    world.toClient = (frame) => (frame["cmd"] === 3 && refuse ? [{ cmd: 3, id: frame["id"], code: 400, error }] : [frame]);
    world.silently(id, "bob", ["1"]);
    bob.client.send(id, "2");
    await world.clock.advance(60_000);
    expect(alice.sent(3)).toHaveLength(1);
    expect(alice.events("warning").map((w) => w.name)).toContain("PULL_FAILED");
    refuse = false;
    bob.client.send(id, "3");
    await world.clock.advance(2_000);
    expect(alice.seqs(id)).toEqual([1, 2, 3]);
  });

  it("run for a few conversations at a time", async () => {
    const world = new World();
    const { alice, bob } = await world.pair();
    const ids: string[] = [];
    for (let i = 0; i < 8; i++) {
      const group = await world.run(alice.client.createGroup({ name: `g${i}`, members: ["bob"] }));
      ids.push(group.conversationId);
    }
    bob.wire.close(1006);
    for (const id of ids) world.silently(id, "alice", ["x"]);
    let open = 0;
    let most = 0;
    world.toServer = (frame) => {
      if (frame["cmd"] === 3) most = Math.max(most, ++open);
      return [frame];
    };
    world.toClient = (frame) => {
      if (frame["cmd"] === 3) open -= 1;
      return [frame];
    };
    await world.clock.advance(5_000);
    expect(bob.messages).toHaveLength(8);
    expect(most).toBe(3);
  });
});

describe("LAGGED", () => {
  it("is answered by a pull from the last contiguous seq", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    world.silently(id, "bob", ["1", "2", "3"]);
    alice.wire.inject({ cmd: 10, conversation_id: id, from_seq: 1 });
    await world.clock.advance(500);
    expect(alice.seqs(id)).toEqual([1, 2, 3]);
    expect(alice.sent(3)[0]).toMatchObject({ cursor_seq: 0 });
  });

  it("pulls even when the named seq has arrived meanwhile: later ones were dropped too", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    bob.client.send(id, "1");
    await world.clock.advance(100);
    world.silently(id, "bob", ["2", "3"]);
    alice.wire.inject({ cmd: 10, conversation_id: id, from_seq: 1 });
    await world.clock.advance(500);
    expect(alice.seqs(id)).toEqual([1, 2, 3]);
  });

  it("during a pull leads to another one", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    world.silently(id, "bob", ["1"]);
    alice.wire.inject({ cmd: 10, conversation_id: id, from_seq: 1 });
    await world.clock.advance(7);
    // The server has answered the first pull; this one came too late for it.
    world.silently(id, "bob", ["2"]);
    alice.wire.inject({ cmd: 10, conversation_id: id, from_seq: 2 });
    await world.clock.advance(500);
    expect(alice.seqs(id)).toEqual([1, 2]);
  });

  it("of an unknown conversation is not forgotten while the list is read", async () => {
    const world = new World();
    const { alice, bob } = await world.pair();
    world.toClient = (frame, wire) => (frame["cmd"] === 12 && wire === bob.wire ? [] : [frame]);
    const group = await world.run(alice.client.createGroup({ name: "new", members: ["bob"] }));
    world.silently(group.conversationId, "alice", ["1", "2"]);
    bob.wire.inject({ cmd: 10, conversation_id: group.conversationId, from_seq: 1 });
    await world.clock.advance(9);
    world.silently(group.conversationId, "alice", ["3"]);
    await world.clock.advance(2_000);
    expect(bob.seqs(group.conversationId)).toEqual([1, 2, 3]);
  });
});

describe("during the first sync", () => {
  const slowSync = async () => {
    const world = new World();
    const { bob, id } = await world.pair();
    world.silently(id, "bob", ["1", "2"]);
    const phone = world.person("phone", { deviceId: "phone", environment: { storage: store() } });
    await phone.client.login({ username: "alice", password: "password-1" });
    world.toClient = (frame, wire) => {
      if (frame["cmd"] !== 5 || wire.client !== "phone") return [frame];
      world.clock.after(300, () => wire.inject(frame));
      return [];
    };
    phone.client.connect();
    await world.clock.advance(50);
    return { world, bob, phone, id };
  };

  it("a push that overtakes the list is delivered", async () => {
    const { world, bob, phone, id } = await slowSync();
    bob.client.send(id, "3");
    await world.clock.advance(1_000);
    expect(phone.seqs(id)).toEqual([3]);
    expect(phone.client.messages(id).map((m) => m.seq)).toEqual([3]);
  });

  it("a push that the list counts already is delivered all the same", async () => {
    const world = new World();
    const { bob, id } = await world.pair();
    const phone = world.person("phone", { deviceId: "phone", environment: { storage: store() } });
    await phone.client.login({ username: "alice", password: "password-1" });
    world.toServer = (frame, wire) => {
      if (frame["cmd"] !== 5 || wire.client !== "phone") return [frame];
      // The message is stored and pushed just before the list is read.
      bob.client.send(id, "1");
      world.clock.after(50, () => world.server.text(wire.connection, JSON.stringify(frame)));
      return [];
    };
    phone.client.connect();
    await world.clock.advance(1_000);
    expect(phone.seqs(id)).toEqual([1]);
    expect(phone.client.conversation(id)?.unread).toBe(1);
  });

  it("LAGGED is not forgotten", async () => {
    const { world, phone, id } = await slowSync();
    world.silently(id, "bob", ["3", "4"]);
    phone.wire.inject({ cmd: 10, conversation_id: id, from_seq: 3 });
    await world.clock.advance(1_000);
    expect(phone.seqs(id)).toEqual([3, 4]);
  });

  it("more early pushes than are kept are pulled", async () => {
    const { world, phone, id } = await slowSync();
    for (let seq = 3; seq <= 100; seq++) {
      world.silently(id, "bob", [String(seq)]);
      const payload = world.server.conversations.get(id)!.messages.at(-1)!;
      phone.wire.inject({ cmd: 4, conversation_id: id, payload });
    }
    await world.clock.advance(2_000);
    expect(phone.seqs(id)).toEqual(upTo(100, 3));
  });
});

describe("after a reconnect", () => {
  it("catches up exactly what was missed", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    bob.client.send(id, "1");
    await world.clock.advance(200);
    world.reachable = false;
    alice.wire.close(1006);
    await world.clock.advance(1_000);
    for (let i = 2; i <= 20; i++) bob.client.send(id, String(i));
    await world.clock.advance(10_000);
    world.reachable = true;
    await world.clock.advance(35_000);
    expect(alice.seqs(id)).toEqual(upTo(20));
    expect(alice.client.messages(id).map((m) => m.seq)).toEqual(upTo(20));
    expect(alice.client.conversation(id)).toMatchObject({ unread: 20, maxSeq: 20 });
  });

  it("asks nothing about conversations that have nothing new", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    bob.client.send(id, "1");
    await world.clock.advance(200);
    alice.wire.close(1006);
    await world.clock.advance(2_000);
    expect(alice.sent(5)).toHaveLength(2);
    expect(alice.sent(3)).toEqual([]);
  });

  it("reads all pages of the list", async () => {
    const world = new World();
    const { alice, bob } = await world.pair({ tuning: { syncLimit: 3 } });
    for (let i = 0; i < 9; i++) await world.run(alice.client.createGroup({ name: `g${i}`, members: ["bob"] }), 50);
    bob.wire.close(1006);
    await world.clock.advance(2_000);
    expect(bob.wire.sent.filter((f) => f["cmd"] === 5).map((f) => f["cursor"])).toEqual(["", "3", "6", "9"]);
    expect(bob.client.conversations()).toHaveLength(10);
    expect(bob.events("synced").at(-1)).toEqual({ conversations: 10 });
  });

  it("does not loop over a cursor that stands still", async () => {
    const world = new World();
    const { alice } = await world.pair();
    world.toClient = (frame) => (frame["cmd"] === 5 ? [{ ...frame, has_more: true, next_cursor: "" }] : [frame]);
    alice.wire.close(1006);
    await world.clock.advance(10_000);
    expect(alice.wire.sent.filter((f) => f["cmd"] === 5)).toHaveLength(1);
  });

  it("learns of conversations that came and went meanwhile", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    world.reachable = false;
    bob.wire.close(1006);
    await world.clock.advance(1_000);
    world.server.conversations.get(id)!.members.delete(bob.client.user!.userId);
    const fresh = await world.run(alice.client.createGroup({ name: "fresh", members: ["bob"] }));
    alice.client.send(fresh.conversationId, "welcome");
    await world.clock.advance(1_000);
    world.reachable = true;
    await world.clock.advance(35_000);
    expect(bob.client.conversations().map((c) => c.name)).toEqual(["fresh"]);
    expect(bob.messages.map((m) => m.content)).toEqual(["welcome"]);
  });

  it("survives refused and lost syncs", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair();
    alice.wire.close(1006);
    world.silently(id, "bob", ["1"]);
    let n = 0;
    world.toClient = (frame) => {
      if (frame["cmd"] !== 5) return [frame];
      n += 1;
      const error = { name: "BUSY", temporary: true, retry_after_ms: 100, detail: "" };
      if (n < 4) return [{ cmd: 5, id: frame["id"], code: 503, error }];
      return n === 4 ? [] : [frame];
    };
    await world.clock.advance(60_000);
    expect(alice.seqs(id)).toEqual([1]);
    expect(bob.seqs(id)).toEqual([]);
  });

  it("breaks off a sync of an older connection", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    world.toClient = (frame) => (frame["cmd"] === 5 ? [] : [frame]);
    for (let i = 0; i < 3; i++) {
      alice.wire.close(1006);
      await world.clock.advance(5_000);
    }
    world.toClient = (frame) => [frame];
    world.silently(id, "bob", ["1"]);
    alice.wire.close(1006);
    await world.clock.advance(60_000);
    expect(alice.seqs(id)).toEqual([1]);
    expect(alice.wire.sent.filter((f) => f["cmd"] === 5)).toHaveLength(1);
  });

  it("skips what lies too far back, and leaves it to history", async () => {
    const world = new World();
    const { alice, bob, id } = await world.pair({ tuning: { catchUpLimit: 100, pullLimit: 20 } });
    bob.client.send(id, "1");
    await world.clock.advance(200);
    world.reachable = false;
    alice.wire.close(1006);
    await world.clock.advance(1_000);
    world.silently(id, "bob", upTo(500, 2).map(String));
    world.reachable = true;
    await world.clock.advance(35_000);
    expect(alice.seqs(id)).toEqual([1, ...upTo(500, 481)]);
    expect(alice.client.messages(id).map((m) => m.seq)).toEqual(upTo(500, 481));
    expect(alice.client.hasOlder(id)).toBeUndefined();
    await world.run(alice.client.loadOlder(id, 30));
    expect(alice.client.messages(id).map((m) => m.seq)).toEqual(upTo(500, 451));
  });
});
