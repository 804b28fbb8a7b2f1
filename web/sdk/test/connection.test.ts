import { describe, expect, it } from "vitest";
import { CorelaneError } from "../src/errors.js";
import { store, World } from "./world.js";

const DAY_MS = 86_400_000;

describe("connecting", () => {
  it("logs in by cmd 1 with token, device and class, before anything else", async () => {
    const world = new World();
    const alice = await world.join("alice", { deviceId: "device-1", deviceClass: "web" });
    const first = alice.wire.sent[0]!;
    expect(first).toEqual({
      cmd: 1,
      payload: { token: expect.stringMatching(/^access-/) as unknown, device_id: "device-1", device_class: "web" },
    });
    expect(alice.client.state).toMatchObject({ status: "online", user: { username: "alice" } });
    expect(alice.client.user?.userId).toBe(world.server.users.get("alice")?.id);
  });

  it("keeps one device id in storage", async () => {
    const world = new World();
    const storage = store();
    const environment = { storage };
    const one = world.person("a", { environment });
    const two = world.person("a", { environment });
    await one.client.register({ username: "a", password: "password-1" });
    one.client.connect();
    await world.clock.advance(100);
    const id = storage.get("device_id");
    expect(id).toMatch(/^[0-9a-f-]{36}$/);
    expect(one.wire.connection.deviceId).toBe(id);
    await two.client.login({ username: "a", password: "password-1" });
    two.client.connect();
    await world.clock.advance(100);
    expect(two.wire.connection.deviceId).toBe(id);
  });

  it("tells every state in order", async () => {
    const world = new World();
    const alice = await world.join("alice");
    alice.client.disconnect();
    expect(alice.events("connection").map((s) => s.status)).toEqual(["connecting", "online", "idle"]);
  });

  it("sends nothing but the login until it is answered", async () => {
    const world = new World();
    const alice = world.person("alice");
    await alice.client.register({ username: "alice", password: "password-1" });
    world.toClient = (frame) => (frame["cmd"] === 1 ? [] : [frame]);
    alice.client.connect();
    alice.client.send("c", "early");
    await world.clock.advance(10_000);
    expect(alice.wire.sent.map((f) => f["cmd"])).toEqual([1]);
  });

  it("gives up on a login that is not answered, and tries again", async () => {
    const world = new World();
    const alice = world.person("alice");
    await alice.client.register({ username: "alice", password: "password-1" });
    world.toClient = (frame) => (frame["cmd"] === 1 ? [] : [frame]);
    alice.client.connect();
    await world.clock.advance(14_000);
    expect(alice.client.state.status).toBe("connecting");
    world.toClient = (frame) => [frame];
    await world.clock.advance(3_000);
    expect(alice.client.state.status).toBe("online");
    expect(world.wires).toHaveLength(2);
    expect(world.wires[0]!.open).toBe(false);
  });

  it("connect twice is connect once", async () => {
    const world = new World();
    const alice = await world.join("alice");
    alice.client.connect();
    await world.clock.advance(1000);
    expect(world.wires).toHaveLength(1);
  });

  it("stays away after disconnect, and leaves no timers", async () => {
    const world = new World();
    const alice = await world.join("alice");
    alice.client.disconnect();
    await world.clock.advance(DAY_MS);
    expect(world.wires).toHaveLength(1);
    expect(world.clock.pending).toBe(0);
  });

  it("stops without a session", async () => {
    const world = new World();
    const nobody = world.person("nobody");
    nobody.client.connect();
    await world.clock.advance(10);
    expect(nobody.client.state).toMatchObject({ status: "stopped", reason: "unauthenticated" });
  });
});

describe("reconnecting", () => {
  it("backs off exponentially with full jitter, within its bounds", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.reachable = false;
    world.attemptsAtMs = [];
    alice.wire.close(1006);
    await world.clock.advance(600_000);
    const gaps = world.attemptsAtMs.slice(1).map((at, i) => at - world.attemptsAtMs[i]! - world.latencyMs);
    expect(gaps.length).toBeGreaterThan(15);
    gaps.forEach((gap, i) => {
      expect(gap).toBeGreaterThanOrEqual(0);
      expect(gap).toBeLessThan(Math.min(30_000, 500 * 2 ** (i + 1)));
    });
    expect(Math.max(...gaps)).toBeGreaterThan(10_000);
    world.reachable = true;
    await world.clock.advance(31_000);
    expect(alice.client.state.status).toBe("online");
  });

  it("tells when it will try again", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.reachable = false;
    alice.wire.close(1006);
    await world.clock.advance(20_000);
    const state = alice.client.state;
    if (state.status !== "waiting") throw new Error(state.status);
    expect(state.retryAtMs).toBeGreaterThan(world.clock.now());
    expect(state.retryAtMs).toBeLessThanOrEqual(world.clock.now() + 30_000);
  });

  it("starts the backoff over once a connection has held", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.reachable = false;
    alice.wire.close(1006);
    await world.clock.advance(120_000);
    world.reachable = true;
    await world.clock.advance(45_000);
    expect(alice.client.state.status).toBe("online");
    world.attemptsAtMs = [];
    const lostAtMs = world.clock.now();
    alice.wire.close(1006);
    await world.clock.advance(600);
    expect(world.attemptsAtMs[0]! - lostAtMs).toBeLessThan(500 + 10);
  });

  it("does not start over while connections break right after login", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.attemptsAtMs = [];
    for (let i = 0; i < 300; i++) {
      if (alice.client.state.status === "online" && alice.wire.open) alice.wire.close(4000);
      await world.clock.advance(1000);
    }
    // A second each would be 300 attempts.
    expect(world.attemptsAtMs.length).toBeLessThan(60);
  });

  it("comes back when the device says that the network is there", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.setOnline("alice", false);
    world.reachable = false;
    await world.clock.advance(60_000);
    expect(alice.client.state.status).not.toBe("online");
    world.reachable = true;
    world.setOnline("alice", true);
    await world.clock.advance(50);
    expect(alice.client.state.status).toBe("online");
  });

  it("is not kept away by a device that is wrong about its network", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.setOnline("alice", false);
    await world.clock.advance(2_000);
    expect(alice.client.state.status).toBe("online");
  });

  it("tries now when asked", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.reachable = false;
    alice.wire.close(1006);
    await world.clock.advance(100_000);
    world.reachable = true;
    while (alice.client.state.status !== "waiting") await world.clock.advance(1);
    alice.client.retryNow();
    await world.clock.advance(50);
    expect(alice.client.state.status).toBe("online");
  });

  it("ignores what an abandoned socket still says", async () => {
    const world = new World();
    const alice = await world.join("alice");
    const old = alice.wire;
    old.close(1006);
    await world.clock.advance(2000);
    const before = alice.log.length;
    old.inject({ cmd: 4, conversation_id: "c", payload: { seq: 1, content: "ghost" } });
    old.inject("not json");
    await world.clock.advance(1000);
    expect(alice.log.length).toBe(before);
    expect(alice.messages).toEqual([]);
  });
});

describe("close codes", () => {
  const reconnectDelay = async (code: number): Promise<number | undefined> => {
    const world = new World();
    const alice = await world.join("alice");
    await world.clock.advance(20_000);
    world.attemptsAtMs = [];
    const closedAtMs = world.clock.now() + world.latencyMs;
    alice.wire.close(code);
    await world.clock.advance(120_000);
    return world.attemptsAtMs[0] === undefined ? undefined : world.attemptsAtMs[0] - closedAtMs;
  };

  it.each([4000, 4001, 4099])("%i: at once", async (code) => {
    expect(await reconnectDelay(code)).toBe(0);
  });

  it.each([4100, 4101, 4102, 4199])("%i: after a moment when the server named none", async (code) => {
    const delayMs = await reconnectDelay(code);
    expect(delayMs).toBeGreaterThanOrEqual(500);
    expect(delayMs).toBeLessThan(1000);
  });

  it.each([1000, 1001, 1006, 1009, 1011, 3000])("%i: with backoff", async (code) => {
    const delayMs = await reconnectDelay(code);
    expect(delayMs).toBeGreaterThanOrEqual(0);
    expect(delayMs).toBeLessThan(500);
  });

  it.each([
    [4900, "replaced"],
    [4901, "refused"],
    [4999, "refused"],
  ])("%i: never again (%s)", async (code, reason) => {
    const world = new World();
    const alice = await world.join("alice");
    alice.wire.close(code, "why");
    await world.clock.advance(DAY_MS);
    expect(world.wires).toHaveLength(1);
    expect(alice.client.state).toEqual({ status: "stopped", reason, detail: "why" });
    alice.client.connect();
    await world.clock.advance(100);
    expect(alice.client.state.status).toBe("online");
  });

  it.each([4200, 4201, 4299])("%i: with a new token", async (code) => {
    const world = new World();
    const alice = await world.join("alice");
    const oldToken = (alice.sent(1)[0]!["payload"] as { token: string }).token;
    world.restCalls = [];
    alice.wire.close(code);
    await world.clock.advance(100);
    expect(world.restCalls).toEqual(["/api/v1/token/refresh"]);
    expect(alice.client.state.status).toBe("online");
    expect((alice.sent(1)[1]!["payload"] as { token: string }).token).not.toBe(oldToken);
  });

  it("a second device login ends the first for good", async () => {
    const world = new World();
    const alice = await world.join("alice", { deviceId: "same" });
    const again = world.person("alice2", { deviceId: "same" });
    await again.client.login({ username: "alice", password: "password-1" });
    again.client.connect();
    await world.clock.advance(100);
    expect(again.client.state.status).toBe("online");
    expect(alice.client.state).toMatchObject({ status: "stopped", reason: "replaced" });
  });
});

describe("tokens", () => {
  it("stop everything when the refresh is refused", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.server.refreshTokens.clear();
    world.server.accessTokens.clear();
    alice.wire.close(4200);
    await world.clock.advance(DAY_MS);
    expect(alice.client.state).toMatchObject({ status: "stopped", reason: "unauthenticated" });
    expect(world.wires).toHaveLength(1);
  });

  it("are renewed later when the server cannot be reached for it", async () => {
    const world = new World();
    const alice = await world.join("alice");
    world.reachable = false;
    alice.wire.close(4200);
    await world.clock.advance(60_000);
    expect(alice.client.state.status).not.toBe("stopped");
    world.reachable = true;
    await world.clock.advance(31_000);
    expect(alice.client.state.status).toBe("online");
  });

  it("refused again and again end in a login by hand, not in a loop", async () => {
    const world = new World();
    const alice = await world.join("alice");
    const { accessTokens } = world.server;
    world.toServer = (frame) => {
      if (frame["cmd"] === 1) accessTokens.clear();
      return [frame];
    };
    alice.wire.close(4200);
    await world.clock.advance(DAY_MS);
    expect(alice.client.state).toMatchObject({ status: "stopped", reason: "unauthenticated" });
    expect(world.wires.length).toBeLessThanOrEqual(5);
  });

  it("that run out are renewed before they are used", async () => {
    const world = new World({ tokenLifeMs: 60_000 });
    const alice = await world.join("alice");
    await world.clock.advance(50_000);
    world.restCalls = [];
    alice.wire.close(4000);
    await world.clock.advance(100);
    expect(world.restCalls).toEqual(["/api/v1/token/refresh"]);
    expect(alice.client.state.status).toBe("online");
  });

  it("may come from the application", async () => {
    const world = new World();
    const account = { username: "alice", password: "password-1" };
    world.server.createUser(account);
    const asked: boolean[] = [];
    const alice = world.person("alice", {
      tokenProvider: async (renew) => {
        asked.push(renew);
        return world.server.login(account).access_token;
      },
    });
    alice.client.connect();
    await world.clock.advance(100);
    expect(alice.client.user?.username).toBe("alice");
    alice.wire.close(4200);
    await world.clock.advance(100);
    expect(asked).toEqual([false, true]);
    expect(alice.client.state.status).toBe("online");
  });

  it("that the application cannot provide for good stop the client", async () => {
    const world = new World();
    const alice = world.person("alice", {
      tokenProvider: () =>
        Promise.reject(new CorelaneError({ name: "LOCKED", code: 0, temporary: false, retryAfterMs: 0, detail: "locked" })),
    });
    alice.client.connect();
    await world.clock.advance(1000);
    expect(alice.client.state).toEqual({ status: "stopped", reason: "unauthenticated", detail: "locked" });
  });
});
