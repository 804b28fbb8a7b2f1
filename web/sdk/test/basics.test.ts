import { describe, expect, it, vi } from "vitest";
import { backoffCeilingMs, backoffMs } from "../src/backoff.js";
import { memoryStore, webStore } from "../src/browser.js";
import { Emitter } from "../src/emitter.js";
import { asCorelaneError, closeAction, CorelaneError, localError } from "../src/errors.js";
import { uuidV7 } from "../src/uuid.js";
import { dice } from "./world.js";

describe("backoff", () => {
  const options = { baseMs: 500, maxMs: 30_000 };
  const fixed = (value: number) => ({ next: () => value, bytes: () => new Uint8Array() });

  it("doubles its ceiling up to the maximum", () => {
    expect([0, 1, 2, 3].map((attempt) => backoffCeilingMs(attempt, options))).toEqual([500, 1000, 2000, 4000]);
    expect(backoffCeilingMs(10, options)).toBe(30_000);
    expect(backoffCeilingMs(5000, options)).toBe(30_000);
    expect(backoffCeilingMs(-1, options)).toBe(500);
  });

  it("draws from the whole interval", () => {
    expect(backoffMs(3, options, fixed(0))).toBe(0);
    expect(backoffMs(3, options, fixed(0.5))).toBe(2000);
    expect(backoffMs(3, options, fixed(0.999_999))).toBe(3999);
  });

  it("stays within its bounds for every draw", () => {
    const random = dice(7);
    for (let attempt = 0; attempt < 40; attempt++) {
      for (let i = 0; i < 50; i++) {
        const delayMs = backoffMs(attempt, options, random);
        expect(delayMs).toBeGreaterThanOrEqual(0);
        expect(delayMs).toBeLessThan(backoffCeilingMs(attempt, options));
      }
    }
  });

  it("spreads clients over the interval", () => {
    const random = dice(11);
    const draws = Array.from({ length: 400 }, () => backoffMs(4, options, random));
    const quarters = [0, 1, 2, 3].map((q) => draws.filter((d) => Math.floor(d / 2000) === q).length);
    for (const share of quarters) expect(share).toBeGreaterThan(60);
  });
});

describe("uuidV7", () => {
  it("has the layout of RFC 9562", () => {
    expect(uuidV7(1_700_000_000_000, dice(3))).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  it("carries the time and sorts by it", () => {
    const id = uuidV7(1_700_000_000_123, dice(3));
    expect(Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16)).toBe(1_700_000_000_123);
    expect(uuidV7(1_700_000_000_124, dice(4)) > id).toBe(true);
  });

  it("does not repeat within a millisecond", () => {
    const random = dice(5);
    expect(new Set(Array.from({ length: 2000 }, () => uuidV7(1, random))).size).toBe(2000);
  });

  it("survives a clock before the epoch", () => {
    expect(uuidV7(-5, dice(1))).toMatch(/^00000000-0000-7/);
  });
});

describe("close codes", () => {
  it.each([
    [4000, "now"],
    [4099, "now"],
    [4100, "delayed"],
    [4102, "delayed"],
    [4199, "delayed"],
    [4200, "reauthenticate"],
    [4299, "reauthenticate"],
    [4900, "stop"],
    [4999, "stop"],
    [1000, "backoff"],
    [1006, "backoff"],
    [1011, "backoff"],
    [4300, "backoff"],
    [3999, "backoff"],
    [5000, "backoff"],
  ])("%i means %s", (code, action) => {
    expect(closeAction(code)).toBe(action);
  });
});

describe("errors", () => {
  it("keep the failure's fields", () => {
    const error = new CorelaneError({ name: "BUSY", code: 503, temporary: true, retryAfterMs: 20, detail: "full" });
    expect(error).toBeInstanceOf(Error);
    expect(error.message).toBe("BUSY: full");
    expect(error.toFailure()).toEqual({ name: "BUSY", code: 503, temporary: true, retryAfterMs: 20, detail: "full" });
  });

  it("turn foreign exceptions into temporary network errors", () => {
    expect(asCorelaneError(new TypeError("fetch failed"))).toMatchObject({ name: "NETWORK", temporary: true });
    expect(asCorelaneError("odd")).toMatchObject({ name: "NETWORK", detail: "odd" });
    const own = localError("X", "", false);
    expect(asCorelaneError(own)).toBe(own);
  });
});

describe("the emitter", () => {
  it("keeps order when a listener causes events", () => {
    const emitter = new Emitter<{ n: number }>(() => {});
    const first: number[] = [];
    const second: number[] = [];
    emitter.on("n", (n) => {
      first.push(n);
      if (n === 1) emitter.emit("n", 3);
    });
    emitter.on("n", (n) => second.push(n));
    emitter.batch(() => {
      emitter.emit("n", 1);
      emitter.emit("n", 2);
    });
    expect(first).toEqual([1, 2, 3]);
    expect(second).toEqual([1, 2, 3]);
  });

  it("keeps going when a listener throws", () => {
    const report = vi.fn();
    const emitter = new Emitter<{ n: number }>(report);
    const seen: number[] = [];
    emitter.on("n", () => {
      throw new Error("listener");
    });
    emitter.on("n", (n) => seen.push(n));
    emitter.emit("n", 1);
    emitter.emit("n", 2);
    expect(seen).toEqual([1, 2]);
    expect(report).toHaveBeenCalledTimes(2);
  });

  it("drains even when batched work throws", () => {
    const emitter = new Emitter<{ n: number }>(() => {});
    const seen: number[] = [];
    emitter.on("n", (n) => seen.push(n));
    expect(() =>
      emitter.batch(() => {
        emitter.emit("n", 1);
        throw new Error("work");
      }),
    ).toThrow("work");
    emitter.emit("n", 2);
    expect(seen).toEqual([1, 2]);
  });

  it("forgets a removed listener", () => {
    const emitter = new Emitter<{ n: number }>(() => {});
    const seen: number[] = [];
    const off = emitter.on("n", (n) => seen.push(n));
    off();
    off();
    emitter.emit("n", 1);
    expect(seen).toEqual([]);
  });
});

describe("stores", () => {
  it("in memory", () => {
    const kept = memoryStore();
    kept.set("a", "1");
    expect(kept.get("a")).toBe("1");
    kept.remove("a");
    expect(kept.get("a")).toBeNull();
  });

  it("in web storage, behind a prefix", () => {
    const raw = new Map<string, string>();
    const storage = {
      getItem: (key: string) => raw.get(key) ?? null,
      setItem: (key: string, value: string) => void raw.set(key, value),
      removeItem: (key: string) => void raw.delete(key),
    } as unknown as Storage;
    const kept = webStore(storage, "p.");
    kept.set("a", "1");
    expect([...raw]).toEqual([["p.a", "1"]]);
    expect(kept.get("a")).toBe("1");
    kept.remove("a");
    expect(raw.size).toBe(0);
  });
});
