import { describe, expect, it } from "vitest";
import { BUFFER_MAX, Timeline } from "../src/timeline.js";
import { dice } from "./world.js";

const seqs = (items: Array<{ seq: number }>): number[] => items.map((item) => item.seq);
const at = (seq: number): { seq: number } => ({ seq });

describe("a timeline", () => {
  it("delivers what follows without a hole", () => {
    const timeline = new Timeline(3);
    expect(seqs(timeline.offer(at(4)))).toEqual([4]);
    expect(seqs(timeline.offer(at(5)))).toEqual([5]);
    expect(timeline.last).toBe(5);
    expect(timeline.behind).toBe(false);
  });

  it("holds back what lies behind a hole, and releases it in order", () => {
    const timeline = new Timeline(0);
    expect(timeline.offer(at(3))).toEqual([]);
    expect(timeline.offer(at(2))).toEqual([]);
    expect(timeline.behind).toBe(true);
    expect(seqs(timeline.offer(at(1)))).toEqual([1, 2, 3]);
    expect(timeline.behind).toBe(false);
  });

  it("drops duplicates, delivered or waiting", () => {
    const timeline = new Timeline(0);
    timeline.offer(at(1));
    expect(timeline.offer(at(1))).toEqual([]);
    timeline.offer(at(3));
    timeline.offer(at(3));
    expect(seqs(timeline.offer(at(2)))).toEqual([2, 3]);
  });

  it("steps over seqs that a page shows to be void", () => {
    const timeline = new Timeline(4);
    timeline.offer(at(9));
    expect(seqs(timeline.page(4, [at(5), at(8)], 8))).toEqual([5, 8, 9]);
    expect(timeline.last).toBe(9);
  });

  it("keeps a pushed message that a page leaves out", () => {
    const timeline = new Timeline(0);
    timeline.offer(at(2));
    expect(seqs(timeline.page(0, [at(1), at(3)], 3))).toEqual([1, 2, 3]);
  });

  it("moves on over a page of nothing but void seqs", () => {
    const timeline = new Timeline(4);
    timeline.known(7);
    expect(timeline.page(4, [], 7)).toEqual([]);
    expect(timeline.last).toBe(7);
    expect(timeline.behind).toBe(false);
  });

  it("does not trust a page that starts above its position", () => {
    const timeline = new Timeline(4);
    expect(timeline.page(6, [at(7), at(8)], 8)).toEqual([]);
    expect(timeline.last).toBe(4);
    expect(seqs(timeline.page(4, [at(5), at(6)], 6))).toEqual([5, 6, 7, 8]);
  });

  it("takes a page that reaches back below its position", () => {
    const timeline = new Timeline(6);
    expect(seqs(timeline.page(4, [at(5), at(6), at(7)], 7))).toEqual([7]);
  });

  it("takes a late page whose end lies below its position", () => {
    const timeline = new Timeline(6);
    expect(timeline.page(2, [at(3), at(4)], 4)).toEqual([]);
    expect(timeline.last).toBe(6);
  });

  it("knows of messages it has not seen", () => {
    const timeline = new Timeline(4);
    timeline.known(3);
    expect(timeline.behind).toBe(false);
    timeline.known(6);
    expect(timeline.behind).toBe(true);
  });

  it("jumps ahead and drops what it passes", () => {
    const timeline = new Timeline(0);
    timeline.offer(at(5));
    timeline.offer(at(11));
    expect(seqs(timeline.jump(10))).toEqual([11]);
    expect(timeline.jump(3)).toEqual([]);
    expect(timeline.last).toBe(11);
  });

  it("bounds what waits behind a hole, and gives up the highest first", () => {
    const timeline = new Timeline(0);
    for (let seq = 2; seq < BUFFER_MAX + 500; seq++) timeline.offer(at(seq));
    const released = seqs(timeline.offer(at(1)));
    expect(released).toEqual(Array.from({ length: BUFFER_MAX + 1 }, (_, i) => i + 1));
    expect(timeline.behind).toBe(true);
  });

  it("makes room for a low seq when it is full", () => {
    const timeline = new Timeline(0);
    for (let seq = 3; seq < BUFFER_MAX + 3; seq++) timeline.offer(at(seq));
    timeline.offer(at(2));
    expect(seqs(timeline.offer(at(1))).at(-1)).toBe(BUFFER_MAX + 1);
  });

  it.each([1, 2, 3, 4, 5, 6, 7, 8])("delivers each seq once and in order, however they arrive (seed %i)", (seed) => {
    const { next } = dice(seed);
    const count = 60;
    const timeline = new Timeline(0);
    const delivered: number[] = [];
    while (timeline.last < count) {
      if (next() < 0.15) {
        // A pull: from the position, or from a stale one.
        const cursor = Math.max(0, timeline.last - Math.floor(next() * 5));
        const size = 1 + Math.floor(next() * 6);
        const items = Array.from({ length: size }, (_, i) => at(cursor + 1 + i)).filter((item) => item.seq <= count);
        delivered.push(...seqs(timeline.page(cursor, items, items.at(-1)?.seq ?? cursor)));
      } else {
        delivered.push(...seqs(timeline.offer(at(1 + Math.floor(next() * count)))));
      }
    }
    expect(delivered).toEqual(Array.from({ length: count }, (_, i) => i + 1));
  });
});
