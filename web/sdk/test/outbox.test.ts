import { describe, expect, it } from "vitest";
import { Outbox } from "../src/outbox.js";
import type { OutgoingMessage } from "../src/types.js";
import { store } from "./world.js";

const item = (msgId: string, over: Partial<OutgoingMessage> = {}): OutgoingMessage => ({
  msgId,
  conversationId: "c",
  content: `text of ${msgId}`,
  msgType: 1,
  createdAtMs: 5,
  state: "sending",
  ...over,
});

describe("the outbox", () => {
  it("comes back from storage in order", () => {
    const kept = store();
    const first = new Outbox(kept, () => {});
    first.attach("u");
    first.add(item("a"));
    first.add(item("b", { state: "failed", error: { name: "TOO_LARGE", code: 413, temporary: false, retryAfterMs: 0, detail: "d" } }));
    const second = new Outbox(kept, () => {});
    second.attach("u");
    expect(second.all()).toEqual(first.all());
  });

  it("keeps users apart", () => {
    const kept = store();
    const outbox = new Outbox(kept, () => {});
    outbox.attach("u");
    outbox.add(item("a"));
    outbox.attach("v");
    expect(outbox.all()).toEqual([]);
    outbox.add(item("b"));
    outbox.attach("u");
    expect(outbox.all().map((one) => one.msgId)).toEqual(["a"]);
  });

  it("takes over what was added before the user was known, behind what was stored", () => {
    const kept = store();
    const old = new Outbox(kept, () => {});
    old.attach("u");
    old.add(item("a"));
    const fresh = new Outbox(kept, () => {});
    fresh.add(item("b"));
    fresh.attach("u");
    expect(fresh.all().map((one) => one.msgId)).toEqual(["a", "b"]);
  });

  it("does not store what the server has", () => {
    const kept = store();
    const outbox = new Outbox(kept, () => {});
    outbox.attach("u");
    outbox.add(item("a"));
    expect(kept.entries.size).toBe(1);
    outbox.update(item("a", { state: "sent", seq: 1 }));
    expect(kept.entries.size).toBe(0);
    expect(outbox.get("a")?.state).toBe("sent");
  });

  it("forgets on clear", () => {
    const kept = store();
    const outbox = new Outbox(kept, () => {});
    outbox.attach("u");
    outbox.add(item("a"));
    outbox.clear();
    expect(kept.entries.size).toBe(0);
    expect(outbox.all()).toEqual([]);
  });

  it.each(["{", "null", "5", '"x"', "{}", "[null,5,{},[]]", '[{"msgId":"a"}]', '[{"msgId":1,"conversationId":"c","content":"x"}]'])(
    "starts empty from broken storage: %s",
    (text) => {
      const kept = store();
      kept.set("outbox.u", text);
      const outbox = new Outbox(kept, () => {});
      outbox.attach("u");
      expect(outbox.all()).toEqual([]);
    },
  );

  it("works on in memory when storage fails, and says so", () => {
    const troubles: string[] = [];
    const broken = {
      get: () => null,
      set: () => {
        throw new Error("quota");
      },
      remove: () => {},
    };
    const outbox = new Outbox(broken, (detail) => troubles.push(detail));
    outbox.attach("u");
    outbox.add(item("a"));
    expect(outbox.all()).toHaveLength(1);
    expect(troubles[0]).toContain("quota");
  });
});
