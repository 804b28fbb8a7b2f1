import { describe, expect, it } from "vitest";
import { store, World } from "./world.js";

const resumeOf = (frame: Record<string, unknown> | undefined): unknown =>
  (frame?.["payload"] as Record<string, unknown> | undefined)?.["resume"];

describe("a client that was away", () => {
  it("gets what it missed with its login, without a pull", async () => {
    const world = new World({ resumes: true });
    const { alice, bob, id } = await world.pair();
    alice.client.send(id, "1");
    await world.clock.advance(200);
    bob.wire.close(1006);
    await world.clock.advance(10);
    world.silently(id, "alice", ["2", "3", "4"]);
    await world.clock.advance(60_000);
    expect(resumeOf(bob.sent(1).at(-1))).toEqual([{ conversation_id: id, seq: 1 }]);
    expect(bob.messages.map((m) => m.content)).toEqual(["1", "2", "3", "4"]);
    expect(bob.sent(3)).toEqual([]);
  });

  it("delivers once what comes by push and by resuming, whatever the order", async () => {
    const world = new World({ resumes: true });
    const { alice, bob, id } = await world.pair();
    world.toClient = (frame) => (frame["cmd"] === 14 ? [frame, frame] : [frame]);
    bob.wire.close(1006);
    await world.clock.advance(10);
    world.silently(id, "alice", ["1", "2"]);
    for (let n = 3; n < 60; n++) {
      alice.client.send(id, String(n));
      await world.clock.advance(40);
    }
    await world.clock.advance(60_000);
    expect(bob.seqs(id)).toEqual(Array.from({ length: 59 }, (_, i) => i + 1));
  });

  it("pulls what the server did not bring back", async () => {
    const world = new World({ resumes: true });
    const { bob, id } = await world.pair();
    world.toClient = (frame) => (frame["cmd"] === 14 ? [{ ...frame, recovered: false, payload: [] }] : [frame]);
    bob.wire.close(1006);
    await world.clock.advance(10);
    world.silently(id, "alice", ["1", "2"]);
    await world.clock.advance(60_000);
    expect(bob.seqs(id)).toEqual([1, 2]);
    expect(bob.sent(3).length).toBe(1);
  });

  it("names no conversation on its first login, nor one it has not compared with the server's", async () => {
    const world = new World({ resumes: true });
    const storage = store();
    const environment = world.environment("alice", 1, storage);
    const alice = await world.join("alice", { environment });
    expect(resumeOf(alice.sent(1)[0])).toBeUndefined();
  });

  it("survives a server that sends rubbish for it", async () => {
    const world = new World({ resumes: true });
    const { alice, bob, id } = await world.pair();
    for (const frame of [{ cmd: 14 }, { cmd: 14, conversation_id: "x" }, { cmd: 14, conversation_id: id, payload: [null, 5] }]) {
      bob.wire.inject(frame);
    }
    alice.client.send(id, "1");
    await world.clock.advance(200);
    expect(bob.seqs(id)).toEqual([1]);
  });
});
