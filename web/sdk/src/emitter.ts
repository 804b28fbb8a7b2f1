/** Typed events, delivered in the order in which they were emitted. */

/** Receives one kind of event. */
export type Listener<T> = (event: T) => void;

/**
 * Events queue up while listeners run: a listener that causes further events (by sending, say) sees them
 * after the ones that were already on their way, so order holds even for re-entrant calls.
 */
export class Emitter<Events extends object> {
  private readonly listeners = new Map<keyof Events, Set<Listener<never>>>();
  private readonly queue: Array<() => void> = [];
  private draining = false;

  /** `report` hears of exceptions thrown by listeners; they never reach the caller of `emit`. */
  constructor(private readonly report: (thrown: unknown) => void) {}

  /** Adds a listener; the answer removes it. */
  on<K extends keyof Events>(kind: K, listener: Listener<Events[K]>): () => void {
    let set = this.listeners.get(kind);
    if (set === undefined) {
      set = new Set();
      this.listeners.set(kind, set);
    }
    set.add(listener as Listener<never>);
    return () => void set.delete(listener as Listener<never>);
  }

  emit<K extends keyof Events>(kind: K, event: Events[K]): void {
    this.queue.push(() => {
      for (const listener of [...(this.listeners.get(kind) ?? [])]) this.call(listener as Listener<Events[K]>, event);
    });
    this.drain();
  }

  /** Holds events back until `work` is done, so listeners see its whole effect. */
  batch(work: () => void): void {
    if (this.draining) return work();
    this.draining = true;
    try {
      work();
    } finally {
      this.draining = false;
      this.drain();
    }
  }

  private drain(): void {
    if (this.draining) return;
    this.draining = true;
    try {
      for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) next();
    } finally {
      this.draining = false;
    }
  }

  private call<T>(listener: Listener<T>, event: T): void {
    try {
      listener(event);
    } catch (thrown) {
      this.report(thrown);
    }
  }
}
