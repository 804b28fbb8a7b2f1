import { describe, expect, it } from "vitest";
import { store, World } from "./world.js";

const account = { username: "alice", password: "password-1" };

describe("accounts", () => {
  it("register, log in, and tell who it is", async () => {
    const world = new World();
    const alice = world.person("alice");
    const user = await alice.client.register({ ...account, nickname: "Al" });
    expect(user).toEqual({ userId: world.server.users.get("alice")!.id, username: "alice" });
    expect(world.server.users.get("alice")!.nickname).toBe("Al");
    expect(alice.events("user")).toEqual([user]);
  });

  it("pass on what the server says", async () => {
    const world = new World();
    const alice = world.person("alice");
    await alice.client.register(account);
    await expect(alice.client.register(account)).rejects.toMatchObject({
      name: "ALREADY_EXISTS",
      code: 409,
      temporary: false,
      detail: "this user name is taken",
    });
    await expect(alice.client.login({ ...account, password: "wrong" })).rejects.toMatchObject({ name: "UNAUTHENTICATED" });
    await expect(alice.client.register({ username: "x y", password: "password-1" })).rejects.toMatchObject({ name: "BAD_REQUEST" });
  });

  it("say when the server cannot be reached", async () => {
    const world = new World();
    world.reachable = false;
    await expect(world.person("alice").client.login(account)).rejects.toMatchObject({ name: "NETWORK", temporary: true });
  });

  it("give up on a server that does not answer", async () => {
    const world = new World();
    const hanging = ((_: string, init: RequestInit) =>
      new Promise((_resolve, reject) => init.signal!.addEventListener("abort", () => reject(new Error("aborted"))))) as typeof fetch;
    const alice = world.person("alice", { environment: { fetch: hanging } });
    await expect(world.run(alice.client.login(account), 30_000)).rejects.toMatchObject({ name: "NETWORK" });
  });

  const answering = (status: number, body: string, headers: Record<string, string> = {}): typeof fetch =>
    (async () => ({ ok: status < 400, status, headers: new Headers(headers), text: async () => body })) as unknown as typeof fetch;

  it.each([
    [500, "<html>oops", { name: "INTERNAL", temporary: true }],
    [502, "", { name: "INTERNAL", temporary: true }],
    [429, "{}", { name: "RATE_LIMITED", temporary: true, retryAfterMs: 3000 }],
    [409, '{"code":"ALREADY_EXISTS","detail":"taken","status":409}', { name: "ALREADY_EXISTS", detail: "taken", temporary: false }],
    [403, '{"code":406,"name":"NOT_A_MEMBER","title":"no"}', { name: "NOT_A_MEMBER", code: 406, detail: "no" }],
    [400, '{"error":{"name":"BAD_REQUEST","detail":"nested"}}', { name: "BAD_REQUEST", detail: "nested" }],
    [404, "[]", { name: "NOT_FOUND", temporary: false }],
    [418, "null", { name: "BAD_REQUEST", temporary: false }],
    [200, "not json", { name: "BAD_ANSWER" }],
    [200, '{"user_id":"1"}', { name: "BAD_ANSWER" }],
  ])("read a %i answer of %j", async (status, body, expected) => {
    const world = new World();
    const fetch = answering(status, body, status === 429 ? { "retry-after": "3" } : {});
    const alice = world.person("alice", { environment: { fetch } });
    await expect(alice.client.login(account)).rejects.toMatchObject(expected);
  });

  it("survive a reload, without asking the server for a login", async () => {
    const world = new World();
    const storage = store();
    const before = world.person("alice", { environment: { storage } });
    await before.client.register(account);
    world.restCalls = [];
    const after = world.person("alice", { environment: { storage } });
    expect(after.client.user).toEqual(before.client.user);
    after.client.connect();
    await world.clock.advance(100);
    expect(after.client.state.status).toBe("online");
    expect(world.restCalls).toEqual([]);
  });

  it("log out here and at the server", async () => {
    const world = new World();
    const storage = store();
    const alice = world.person("alice", { environment: { storage } });
    await alice.client.register(account);
    alice.client.connect();
    await world.clock.advance(100);
    await alice.client.logout();
    expect(alice.client.user).toBeUndefined();
    expect(alice.events("user").at(-1)).toBeNull();
    expect(alice.client.state.status).toBe("idle");
    expect(storage.get("session")).toBeNull();
    expect(world.server.refreshTokens.size).toBe(0);
    expect(world.clock.pending).toBe(0);
  });

  it("log out even when the server cannot be reached", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.reachable = false;
    await alice.client.logout();
    expect(alice.client.user).toBeUndefined();
  });

  it("of another person start from nothing", async () => {
    const world = new World();
    const { alice, id } = await world.pair();
    alice.client.send(id, "of alice");
    await world.clock.advance(200);
    await alice.client.logout();
    await alice.client.register({ username: "zoe", password: "password-1" });
    alice.client.connect();
    await world.clock.advance(300);
    expect(alice.client.conversations()).toEqual([]);
    expect(alice.client.messages(id)).toEqual([]);
    expect(alice.client.user?.username).toBe("zoe");
  });

  it.each(["{", "null", "7", "{}", '{"userId":"1"}', '{"accessToken":"x"}'])("ignore a broken stored session: %s", async (text) => {
    const storage = store();
    storage.set("session", text);
    const world = new World();
    const alice = world.person("alice", { environment: { storage } });
    expect(alice.client.user).toBeUndefined();
    await alice.client.register(account);
    expect(alice.client.user?.username).toBe("alice");
  });

  it("work without storage", async () => {
    const fail = (): never => {
      throw new Error("denied");
    };
    const world = new World();
    const alice = world.person("alice", { environment: { storage: { get: fail, set: fail, remove: fail } } });
    await alice.client.register(account);
    alice.client.connect();
    await world.clock.advance(100);
    expect(alice.client.state.status).toBe("online");
    const group = await world.run(alice.client.createGroup({ name: "g", members: [] }));
    alice.client.send(group.conversationId, "x");
    await world.clock.advance(100);
    expect(alice.messages).toHaveLength(1);
    expect(alice.events("warning").map((w) => w.name)).toContain("STORAGE");
    await alice.client.logout();
  });
});

describe("tabs that share a session", () => {
  it("do not spend the same refresh token twice", async () => {
    const world = new World({ tokenLifeMs: 60_000 });
    const storage = store();
    const one = world.person("one", { environment: { storage }, deviceId: "one" });
    await one.client.register(account);
    const two = world.person("two", { environment: { storage }, deviceId: "two" });
    await world.clock.advance(50_000);
    world.restCalls = [];
    one.client.connect();
    await world.clock.advance(100);
    two.client.connect();
    await world.clock.advance(100);
    expect(world.restCalls).toEqual(["/api/v1/token/refresh"]);
    expect(one.client.state.status).toBe("online");
    expect(two.client.state.status).toBe("online");
  });

  it("do not turn into the user of the other tab", async () => {
    const world = new World();
    const storage = store();
    const one = world.person("one", { environment: { storage }, deviceId: "one" });
    await one.client.register(account);
    one.client.connect();
    await world.clock.advance(100);
    const two = world.person("two", { environment: { storage }, deviceId: "two" });
    await two.client.register({ username: "bob", password: "password-1" });
    one.wire.close(4200);
    await world.clock.advance(1_000);
    expect(one.client.state).toMatchObject({ status: "stopped", reason: "unauthenticated" });
    expect(two.client.user?.username).toBe("bob");
    expect(storage.get("session")).toContain("bob");
  });

  it("one renewal serves all who wait for it", async () => {
    const world = new World({ tokenLifeMs: 10_000 });
    const alice = world.person("alice");
    await alice.client.register(account);
    world.restCalls = [];
    alice.client.connect();
    alice.client.disconnect();
    alice.client.connect();
    await world.clock.advance(100);
    expect(world.restCalls).toEqual(["/api/v1/token/refresh"]);
    expect(alice.client.state.status).toBe("online");
  });
});
