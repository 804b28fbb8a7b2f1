/** Order within one conversation: which seqs were delivered, which wait, and where the hole is. */

/** Anything that has a place in a conversation. */
export interface Sequenced {
  readonly seq: number;
}

/** Most messages kept behind a hole. Beyond it the highest go; the pull that fills the hole brings them back. */
export const BUFFER_MAX = 1000;

/**
 * Turns messages that arrive in any order, any number of times, into a strictly rising run without holes.
 * `last` is the highest seq up to which everything was delivered.
 */
export class Timeline<T extends Sequenced> {
  private readonly waiting = new Map<number, T>();
  private highest: number;

  constructor(private lastSeq: number) {
    this.highest = lastSeq;
  }

  /** Last contiguous seq. */
  get last(): number {
    return this.lastSeq;
  }

  /** Highest seq known to exist. */
  get target(): number {
    return this.highest;
  }

  /** Whether messages are known to exist that have not been delivered. */
  get behind(): boolean {
    return this.lastSeq < this.highest;
  }

  /** Notes that the conversation reaches at least to `seq`. */
  known(seq: number): void {
    if (seq > this.highest) this.highest = seq;
  }

  /** Takes one message; the answer is what may be delivered now, in order. */
  offer(item: T): T[] {
    if (item.seq <= this.lastSeq) return [];
    this.known(item.seq);
    // The next one in turn leaves at once and needs no room.
    if (item.seq === this.lastSeq + 1) this.waiting.set(item.seq, item);
    else if (!this.waiting.has(item.seq)) this.keep(item);
    return this.release();
  }

  /**
   * Takes a page of a forward pull that started after `cursorSeq` and ended with `nextCursorSeq`. The page
   * is authoritative: a seq within it that carries no message does not exist, and is stepped over.
   */
  page(cursorSeq: number, items: readonly T[], nextCursorSeq: number): T[] {
    // A page that starts above our position says nothing about the seqs in between.
    if (cursorSeq > this.lastSeq) return items.flatMap((item) => this.offer(item));
    for (const item of items) if (item.seq > this.lastSeq) this.waiting.set(item.seq, item);
    const end = items.reduce((highest, item) => Math.max(highest, item.seq), nextCursorSeq);
    this.known(end);
    return this.take(end);
  }

  /** Gives up everything up to `seq` and goes on behind it. */
  jump(seq: number): T[] {
    if (seq <= this.lastSeq) return [];
    this.known(seq);
    for (const waiting of [...this.waiting.keys()]) if (waiting <= seq) this.waiting.delete(waiting);
    this.lastSeq = seq;
    return this.release();
  }

  /** Delivers what waits up to `end`, holes or not, and what follows without one. */
  private take(end: number): T[] {
    const due = [...this.waiting.keys()].filter((seq) => seq <= end).sort((a, b) => a - b);
    const released = due.map((seq) => this.waiting.get(seq)!);
    for (const seq of due) this.waiting.delete(seq);
    this.lastSeq = Math.max(this.lastSeq, end);
    return [...released, ...this.release()];
  }

  private keep(item: T): void {
    if (this.waiting.size >= BUFFER_MAX) {
      const top = Math.max(...this.waiting.keys());
      if (item.seq > top) return;
      this.waiting.delete(top);
    }
    this.waiting.set(item.seq, item);
  }

  private release(): T[] {
    const released: T[] = [];
    for (let next = this.waiting.get(this.lastSeq + 1); next !== undefined; next = this.waiting.get(this.lastSeq + 1)) {
      this.waiting.delete(next.seq);
      this.lastSeq = next.seq;
      released.push(next);
    }
    return released;
  }
}
