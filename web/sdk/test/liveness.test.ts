import { describe, expect, it } from "vitest";
import { World } from "./world.js";

const DAY_MS = 86_400_000;

describe("heartbeats", () => {
  it("go out at the server's interval", async () => {
    const world = new World({ heartbeatMs: 7_000 });
    const alice = await world.join("alice");
    await world.clock.advance(70_000);
    expect(alice.sent(0).length).toBeGreaterThanOrEqual(9);
    expect(alice.sent(0).length).toBeLessThanOrEqual(10);
    expect(alice.sent(0)[0]).toEqual({ cmd: 0 });
    expect(world.wires).toHaveLength(1);
  });

  it.each([0, -5, "x", null, 1e12])("have a sensible interval when the server says %j", async (heartbeat_ms) => {
    const world = new World();
    const alice = world.person("alice");
    await alice.client.register({ username: "alice", password: "password-1" });
    world.toClient = (frame) =>
      frame["cmd"] === 1 ? [{ ...frame, payload: { ...(frame["payload"] as object), heartbeat_ms } }] : [frame];
    alice.client.connect();
    await world.clock.advance(601_000);
    expect(alice.sent(0).length).toBeGreaterThanOrEqual(1);
    expect(alice.sent(0).length).toBeLessThanOrEqual(20);
  });

  it("notice a connection that is dead without a word", async () => {
    const world = new World();
    const alice = await world.join("alice");
    const dead = alice.wire;
    world.toClient = (frame, wire) => (wire === dead ? [] : [frame]);
    await world.clock.advance(30_000 + 10_000 + 600);
    expect(alice.wire).not.toBe(dead);
    expect(alice.client.state.status).toBe("online");
  });

  it("are satisfied by any inbound frame", async () => {
    const world = new World();
    const alice = await world.join("alice");
    const wire = alice.wire;
    world.toClient = (frame) => (frame["cmd"] === 0 ? [] : [frame]);
    for (let i = 0; i < 30; i++) {
      await world.clock.advance(5_000);
      wire.inject({ cmd: 12, conversation_id: "x", payload: { event: "other" } });
    }
    expect(alice.wire).toBe(wire);
  });

  it("are sent at once when the application wakes up", async () => {
    const world = new World();
    const alice = await world.join("alice");
    const dead = alice.wire;
    world.toClient = (frame, wire) => (wire === dead ? [] : [frame]);
    alice.client.wake();
    expect(alice.sent(0)).toHaveLength(1);
    await world.clock.advance(10_600);
    expect(alice.wire).not.toBe(dead);
    expect(alice.client.state.status).toBe("online");
  });
});

describe("GOAWAY", () => {
  it("moves the client at its slot, not before", async () => {
    const world = new World();
    const alice = await world.join("alice");
    const old = alice.wire;
    old.inject({ cmd: 11, code: 4000, reconnect_after_ms: 5_000, reason: "drain" });
    await world.clock.advance(4_900);
    expect(alice.wire).toBe(old);
    expect(alice.client.state.status).toBe("online");
    await world.clock.advance(200);
    expect(alice.wire).not.toBe(old);
    expect(alice.client.state.status).toBe("online");
  });

  it("lets answers in flight arrive", async () => {
    const world = new World();
    const alice = await world.join("alice");
    const group = await world.run(alice.client.createGroup({ name: "g", members: [] }));
    alice.client.send(group.conversationId, "hello");
    alice.wire.inject({ cmd: 11, code: 4000, reconnect_after_ms: 500, reason: "drain" });
    await world.clock.advance(100);
    expect(alice.messages.map((m) => m.content)).toEqual(["hello"]);
    expect(alice.sent(2)).toHaveLength(1);
  });

  it.each([1000, 1001, 4000, 4100])("keeps its delay when the server then closes with %i", async (code) => {
    const world = new World();
    const alice = await world.join("alice");
    await world.clock.advance(20_000);
    const old = alice.wire;
    const toldAtMs = world.clock.now();
    old.inject({ cmd: 11, code: 4000, reconnect_after_ms: 5_000, reason: "drain" });
    world.attemptsAtMs = [];
    old.close(code);
    await world.clock.advance(20_000);
    expect(world.attemptsAtMs).toEqual([toldAtMs + 5_000]);
  });

  it("with a code of no return ends the client", async () => {
    const world = new World();
    const alice = await world.join("alice");
    alice.wire.inject({ cmd: 11, code: 4900, reconnect_after_ms: 0, reason: "kicked" });
    await world.clock.advance(1000);
    expect(alice.client.state).toMatchObject({ status: "stopped", reason: "replaced" });
  });

  it("with a token code renews the token", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.restCalls = [];
    alice.wire.inject({ cmd: 11, code: 4200, reconnect_after_ms: 0, reason: "revoked" });
    await world.clock.advance(1000);
    expect(world.restCalls).toEqual(["/api/v1/token/refresh"]);
    expect(alice.client.state.status).toBe("online");
  });

  it("without numbers still moves", async () => {
    const world = new World();
    const alice = await world.join("alice");
    const old = alice.wire;
    old.inject({ cmd: 11 });
    await world.clock.advance(1000);
    expect(alice.wire).not.toBe(old);
  });
});

describe("odd frames from the server", () => {
  it.each([
    "",
    "{",
    "[]",
    "null",
    '{"cmd":"4"}',
    '{"cmd":4}',
    '{"cmd":4,"conversation_id":"c"}',
    '{"cmd":4,"conversation_id":"c","payload":{"seq":"1"}}',
    '{"cmd":4,"conversation_id":7,"payload":{"seq":1}}',
    '{"cmd":2,"code":0,"msg_id":"unknown","seq":5}',
    '{"cmd":2,"code":0}',
    '{"cmd":2,"code":406}',
    '{"cmd":3,"code":0,"id":999,"payload":null}',
    '{"cmd":5,"code":503,"id":4294967295,"error":null}',
    '{"cmd":10}',
    '{"cmd":10,"conversation_id":"nowhere","from_seq":-1}',
    '{"cmd":12}',
    '{"cmd":12,"conversation_id":"c","payload":{"event":"joined"}}',
    '{"cmd":77,"code":0}',
    '{"cmd":1,"code":0,"payload":{}}',
    '{"cmd":0,"code":500}',
    '{"cmd":null,"code":400,"error":{"name":"BAD_REQUEST"}}',
    '{"cmd":null,"code":0}',
  ])("do not disturb it: %s", async (text) => {
    const world = new World();
    const alice = await world.join("alice");
    alice.wire.inject(text);
    await world.clock.advance(1000);
    expect(alice.client.state.status).toBe("online");
    expect(world.wires).toHaveLength(1);
    expect(alice.messages).toEqual([]);
    const group = await world.run(alice.client.createGroup({ name: "still works", members: [] }));
    expect(group.name).toBe("still works");
  });

  it("a login answer without a payload still counts", async () => {
    const world = new World();
    const alice = world.person("alice");
    await alice.client.register({ username: "alice", password: "password-1" });
    world.toClient = (frame) => (frame["cmd"] === 1 ? [{ cmd: 1, code: 0 }] : [frame]);
    alice.client.connect();
    await world.clock.advance(100);
    expect(alice.client.state.status).toBe("online");
    expect(alice.client.user?.username).toBe("alice");
  });

  it("a refused login that may pass is tried again after the given delay", async () => {
    const world = new World();
    const alice = world.person("alice");
    await alice.client.register({ username: "alice", password: "password-1" });
    const busy = { name: "BUSY", temporary: true, retry_after_ms: 3_000, detail: "" };
    let refused = 0;
    world.toClient = (frame) => (frame["cmd"] === 1 && refused++ === 0 ? [{ cmd: 1, code: 503, error: busy }] : [frame]);
    const startMs = world.clock.now();
    alice.client.connect();
    await world.clock.advance(20_000);
    expect(world.attemptsAtMs[1]! - startMs).toBeGreaterThanOrEqual(3_000);
    expect(alice.client.state.status).toBe("online");
  });

  it("a login refused for good is not repeated", async () => {
    const world = new World();
    const alice = world.person("alice");
    await alice.client.register({ username: "alice", password: "password-1" });
    const error = { name: "FORBIDDEN", temporary: false, retry_after_ms: 0, detail: "blocked" };
    world.toClient = (frame) => (frame["cmd"] === 1 ? [{ cmd: 1, code: 403, error }] : [frame]);
    alice.client.connect();
    await world.clock.advance(DAY_MS);
    expect(alice.client.state).toEqual({ status: "stopped", reason: "refused", detail: "blocked" });
    expect(world.wires).toHaveLength(1);
  });
});
