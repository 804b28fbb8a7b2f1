import { describe, expect, it } from "vitest";
import type { UserPresence } from "../src/types.js";
import { World } from "./world.js";

const lists = (sent: Record<string, unknown>[]): unknown[] =>
  sent.map((frame) => (frame["payload"] as Record<string, unknown>)["users"]);

describe("presence", () => {
  it("answers who is there, to those who may know", async () => {
    const world = new World();
    const { alice, bob } = await world.pair();
    await world.join("eve");
    const [one, two] = await world.run(alice.client.presence(["bob", "eve", "nobody"]));
    expect(one).toMatchObject({ username: "bob", online: true, lastSeenMs: 0, devices: [{ deviceClass: "web" }] });
    expect(two).toMatchObject({ username: "eve", online: false, lastSeenMs: 0, devices: [] });
    bob.client.disconnect();
    await world.clock.advance(1000);
    const [gone] = await world.run(alice.client.presence(["bob"]));
    expect(gone?.online).toBe(false);
    expect(gone?.lastSeenMs).toBeGreaterThan(0);
  });

  it("tells watchers how things stand and what changes, until they stop", async () => {
    const world = new World();
    const { alice, bob } = await world.pair();
    const seen: UserPresence[] = [];
    const stop = alice.client.watchPresence(["bob"], (presence) => seen.push(presence));
    await world.clock.advance(200);
    bob.client.disconnect();
    await world.clock.advance(200);
    bob.client.connect();
    await world.clock.advance(200);
    expect(seen.map((one) => one.online)).toEqual([true, false, true]);
    stop();
    await world.clock.advance(200);
    bob.client.disconnect();
    await world.clock.advance(200);
    expect(seen.length).toBe(3);
    expect(lists(alice.sent(15))).toEqual([["bob"], []]);
  });

  it("asks for all that is watched at once, and again after a reconnect and now and then", async () => {
    const world = new World();
    const { alice } = await world.pair();
    const seen: UserPresence[] = [];
    alice.client.watchPresence(["bob"], () => {});
    const stop = alice.client.watchPresence(["alice", "bob"], (presence) => seen.push(presence));
    await world.clock.advance(200);
    stop();
    await world.clock.advance(200);
    alice.wire.close(1006);
    await world.clock.advance(60_000);
    expect(lists(alice.sent(15))).toEqual([["bob"], ["bob", "alice"], ["bob"], ["bob"]]);
    await world.clock.advance(10 * 60_000);
    expect(alice.sent(15).length).toBe(5);
    expect(new Set(seen.map((one) => one.username))).toEqual(new Set(["bob", "alice"]));
    alice.client.disconnect();
    await world.clock.advance(3_600_000);
    expect(alice.sent(15).length).toBe(5);
  });

  it("says when it cannot watch, and survives a server that sends rubbish", async () => {
    const world = new World();
    const { alice } = await world.pair();
    const names = Array.from({ length: 101 }, (_, n) => `user${n}`);
    await expect(world.run(alice.client.presence(names))).rejects.toMatchObject({ name: "BAD_REQUEST" });
    alice.client.watchPresence(names, () => {});
    await world.clock.advance(200);
    expect(alice.events("warning").map((one) => one.name)).toEqual(["PRESENCE_FAILED"]);
    for (const frame of [{ cmd: 16 }, { cmd: 16, payload: null }, { cmd: 16, payload: { user_id: 7 } }]) alice.wire.inject(frame);
    expect(alice.events("warning").length).toBe(4);
  });
});
