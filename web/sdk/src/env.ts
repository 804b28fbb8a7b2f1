/**
 * What the client needs from the outside world. Everything that is not pure (time, chance, sockets,
 * HTTP, storage) comes in through these interfaces, so tests run without timers or sockets.
 */

import type { ArchiveStore } from "./types.js";

/** Cancels a timer; calling it twice, or after the timer ran, does nothing. */
export type Cancel = () => void;

/** A clock and its timers. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Runs `run` once after `delayMs`. */
  after(delayMs: number, run: () => void): Cancel;
}

/** Where jitter and identifiers come from. */
export interface Random {
  /** A number in [0, 1). */
  next(): number;
  /** `length` unpredictable bytes. */
  bytes(length: number): Uint8Array;
}

/** What a socket reports. No call may come after `closed`. */
export interface SocketHandlers {
  /** The connection is ready for `send`. */
  open(): void;
  /** One text message arrived. */
  text(data: string): void;
  /** The connection is gone. 1006 when no close frame was seen. */
  closed(code: number, reason: string): void;
}

/** An open, or opening, connection. */
export interface Socket {
  /** Sends one text message. May throw when the socket is not open. */
  send(text: string): void;
  /** Starts the closing handshake. */
  close(code: number, reason: string): void;
}

/** Opens connections. */
export interface Transport {
  open(url: string, handlers: SocketHandlers): Socket;
}

/** A small synchronous store, shaped like the browser's `localStorage`. */
export interface KeyValueStore {
  get(key: string): string | null;
  set(key: string, value: string): void;
  remove(key: string): void;
}

/** Hints about the device's network. They speed things up and are never trusted alone. */
export interface Network {
  /** False when the device says that it has no network. */
  online(): boolean;
  /** Calls back whenever `online()` changes. */
  subscribe(changed: (online: boolean) => void): Cancel;
}

/** Runs `work` while no other tab of the same origin runs work under the same name. */
export type Exclusive = <T>(name: string, work: () => Promise<T>) => Promise<T>;

/** The outside world as the client sees it. */
export interface Environment {
  clock: Clock;
  random: Random;
  transport: Transport;
  storage: KeyValueStore;
  network: Network;
  fetch: typeof fetch;
  exclusive: Exclusive;
  /** Where conversations outlive the page; undefined: nowhere. */
  archive: ArchiveStore | undefined;
}
