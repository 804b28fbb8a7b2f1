/** A world without real time or sockets: a hand-moved clock, a seeded dice, a network with faults on order. */

import { ChatModel, type Connection } from "../../dev-server/model.mjs";
import { type ClientOptions, CorelaneClient } from "../src/client.js";
import type { Clock, Environment, KeyValueStore, Network, SocketHandlers, Transport } from "../src/env.js";
import type { ClientEvents, Message } from "../src/types.js";

/** Lets everything that waits for a promise run. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}

export class FakeClock implements Clock {
  private timers: Array<{ at: number; order: number; run: () => void }> = [];
  private order = 0;

  constructor(private nowMs = 1_700_000_000_000) {}

  now(): number {
    return this.nowMs;
  }

  after(delayMs: number, run: () => void): () => void {
    const timer = { at: this.nowMs + Math.max(0, delayMs), order: this.order++, run };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((other) => other !== timer);
    };
  }

  /** Timers that have yet to run. */
  get pending(): number {
    return this.timers.length;
  }

  /** Moves time, running every timer at its moment. */
  async advance(ms: number): Promise<void> {
    const end = this.nowMs + ms;
    await settle();
    for (let steps = 0; steps < 100_000; steps++) {
      const next = this.timers.filter((t) => t.at <= end).sort((a, b) => a.at - b.at || a.order - b.order)[0];
      if (next === undefined) {
        this.nowMs = end;
        return;
      }
      this.timers = this.timers.filter((other) => other !== next);
      this.nowMs = Math.max(this.nowMs, next.at);
      next.run();
      await settle();
    }
    throw new Error("timers without end");
  }
}

/** A small seeded generator (mulberry32): the same seed gives the same run. */
export function dice(seed: number): { next(): number; bytes(length: number): Uint8Array } {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
  return { next, bytes: (length) => Uint8Array.from({ length }, () => Math.floor(next() * 256)) };
}

export function store(): KeyValueStore & { entries: Map<string, string> } {
  const entries = new Map<string, string>();
  return {
    entries,
    get: (key) => entries.get(key) ?? null,
    set: (key, value) => void entries.set(key, value),
    remove: (key) => void entries.delete(key),
  };
}

type Frame = Record<string, unknown>;

/** One fake socket as a test sees it. */
export interface Wire {
  readonly client: string;
  readonly sent: Frame[];
  readonly received: Frame[];
  readonly connection: Connection;
  /** Delivers raw text to the client. */
  inject(text: string | Frame): void;
  /** Ends the connection as a server's close frame would. */
  close(code: number, reason?: string): void;
  readonly open: boolean;
}

/** What becomes of a frame on its way: itself, others, or none. */
export type Tamper = (frame: Frame, wire: Wire) => Frame[];

/** A server, its clock, and the clients around it. */
export class World {
  readonly clock = new FakeClock();
  readonly server: ChatModel;
  readonly wires: Wire[] = [];
  latencyMs = 5;
  /** Refuses new connections while false. */
  reachable = true;
  toClient: Tamper = (frame) => [frame];
  toServer: Tamper = (frame) => [frame];
  restCalls: string[] = [];
  attemptsAtMs: number[] = [];
  private silent = 0;
  private readonly networks = new Map<string, { online: boolean; listeners: Set<(online: boolean) => void> }>();

  constructor(options: ConstructorParameters<typeof ChatModel>[0] = {}) {
    this.server = new ChatModel({ now: () => this.clock.now(), ...options });
  }

  environment(name: string, seed = 1, storage: KeyValueStore = store()): Environment {
    return {
      clock: this.clock,
      random: dice(seed),
      transport: this.transport(name),
      storage,
      network: this.network(name),
      fetch: ((input: string, init: RequestInit) => this.fetch(input, init)) as typeof fetch,
      exclusive: (_, work) => work(),
      archive: undefined,
    };
  }

  /** A registered, connected client. */
  async join(name: string, options: Partial<ClientOptions> = {}): Promise<Person> {
    const person = this.person(name, options);
    await person.client.register({ username: name, password: "password-1" });
    person.client.connect();
    await this.clock.advance(200);
    return person;
  }

  /** A client that does nothing yet. */
  person(name: string, options: Partial<ClientOptions> = {}): Person {
    const { environment, ...rest } = options;
    const client = new CorelaneClient({
      baseUrl: "http://server.test",
      environment: { ...this.environment(name), ...environment },
      ...rest,
    });
    return new Person(name, client, this);
  }

  /** Moves time a little, then gives what became of the promise. */
  async run<T>(promise: Promise<T>, ms = 200): Promise<T> {
    promise.catch(() => {});
    await this.clock.advance(ms);
    return promise;
  }

  /** Two clients and a group of both. */
  async pair(options: Partial<ClientOptions> = {}): Promise<{ alice: Person; bob: Person; id: string }> {
    const alice = await this.join("alice", options);
    const bob = await this.join("bob", options);
    const group = await this.run(alice.client.createGroup({ name: "both", members: ["bob"] }));
    await this.clock.advance(100);
    return { alice, bob, id: group.conversationId };
  }

  /** Stores messages in the server without pushing them to anybody. */
  silently(conversationId: string, username: string, texts: readonly string[]): void {
    const conversation = this.server.conversations.get(conversationId)!;
    const user = this.server.users.get(username)!;
    for (const text of texts) this.server.store(conversation, user, `silent-${this.silent++}`, text);
  }

  /** The newest wire of a client. */
  wire(name: string): Wire {
    const wire = this.wires.filter((one) => one.client === name).at(-1);
    if (wire === undefined) throw new Error(`${name} never connected`);
    return wire;
  }

  setOnline(name: string, online: boolean): void {
    const network = this.networkOf(name);
    network.online = online;
    for (const listener of [...network.listeners]) listener(online);
  }

  private networkOf(name: string) {
    let network = this.networks.get(name);
    if (network === undefined) {
      network = { online: true, listeners: new Set() };
      this.networks.set(name, network);
    }
    return network;
  }

  private network(name: string): Network {
    return {
      online: () => this.networkOf(name).online,
      subscribe: (changed) => {
        this.networkOf(name).listeners.add(changed);
        return () => void this.networkOf(name).listeners.delete(changed);
      },
    };
  }

  private async fetch(input: string, init: RequestInit): Promise<Response> {
    const { pathname } = new URL(input);
    this.restCalls.push(pathname);
    if (!this.reachable) throw new TypeError("fetch failed");
    const bearer = new Headers(init.headers).get("authorization")?.slice("Bearer ".length);
    const { status, body } = this.server.rest(init.method ?? "GET", pathname, JSON.parse(String(init.body)), bearer);
    const answer = {
      ok: status < 400,
      status,
      headers: new Headers(),
      text: async () => (body === undefined ? "" : JSON.stringify(body)),
    };
    return answer as unknown as Response;
  }

  private transport(name: string): Transport {
    return {
      open: (url, handlers) => {
        if (!url.endsWith("/ws")) throw new Error(`unexpected address ${url}`);
        this.attemptsAtMs.push(this.clock.now());
        if (this.reachable) return this.connect(name, handlers);
        this.clock.after(this.latencyMs, () => handlers.closed(1006, ""));
        return { send: () => {}, close: () => {} };
      },
    };
  }

  private connect(name: string, handlers: SocketHandlers) {
    let open = true;
    const later = (run: () => void): void => void this.clock.after(this.latencyMs, () => open && run());
    const end = (code: number, reason: string): void => {
      if (!open) return;
      this.server.closed(connection);
      this.clock.after(this.latencyMs, () => {
        if (!open) return;
        open = false;
        handlers.closed(code, reason);
      });
    };
    const deliver = (frame: Frame): void => {
      wire.received.push(frame);
      handlers.text(JSON.stringify(frame));
    };
    const connection = this.server.open({
      send: (text) => {
        for (const frame of this.toClient(JSON.parse(text) as Frame, wire)) later(() => deliver(frame));
      },
      close: end,
    });
    const wire: Wire = {
      client: name,
      sent: [],
      received: [],
      connection,
      inject: (text) => handlers.text(typeof text === "string" ? text : JSON.stringify(text)),
      close: (code, reason = "") => end(code, reason),
      get open() {
        return open;
      },
    };
    this.wires.push(wire);
    later(() => handlers.open());
    return {
      send: (text: string) => {
        const frame = JSON.parse(text) as Frame;
        wire.sent.push(frame);
        for (const one of this.toServer(frame, wire)) {
          later(() => connection.open && this.server.text(connection, JSON.stringify(one)));
        }
      },
      close: () => {
        open = false;
        this.server.closed(connection);
      },
    };
  }
}

/** A client and what it told its application. */
export class Person {
  readonly messages: Message[] = [];
  readonly log: Array<{ kind: keyof ClientEvents; event: unknown }> = [];

  constructor(
    readonly name: string,
    readonly client: CorelaneClient,
    private readonly world: World,
  ) {
    client.on("message", (message) => this.messages.push(message));
    const kinds = ["connection", "outgoing", "conversation", "membership", "history", "synced", "user", "warning"] as const;
    for (const kind of kinds) client.on(kind, (event: unknown) => this.log.push({ kind, event }));
  }

  /** What was delivered in a conversation. */
  seqs(conversationId: string): number[] {
    return this.messages.filter((m) => m.conversationId === conversationId).map((m) => m.seq);
  }

  events<K extends keyof ClientEvents>(kind: K): Array<ClientEvents[K]> {
    return this.log.filter((entry) => entry.kind === kind).map((entry) => entry.event as ClientEvents[K]);
  }

  /** The frames this client sent with one command number, over all its connections. */
  sent(cmd: number): Frame[] {
    return this.world.wires.filter((w) => w.client === this.name).flatMap((w) => w.sent.filter((f) => f["cmd"] === cmd));
  }

  get wire(): Wire {
    return this.world.wire(this.name);
  }
}
