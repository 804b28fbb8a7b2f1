/** The environment of a browser, or of any runtime with WebSocket, fetch and crypto. */

import type { Clock, Environment, Exclusive, KeyValueStore, Network, Random, Transport } from "./env.js";
import { indexedDbArchive } from "./indexeddb.js";

const clock: Clock = {
  now: () => Date.now(),
  after(delayMs, run) {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  },
};

const random: Random = {
  next: () => Math.random(),
  bytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
};

const webSockets: Transport = {
  open(url, handlers) {
    const socket = new WebSocket(url);
    socket.onopen = () => handlers.open();
    // Binary messages belong to the other protocol; the JSON protocol is text only.
    socket.onmessage = (event: MessageEvent<unknown>) => {
      if (typeof event.data === "string") handlers.text(event.data);
    };
    // An error is always followed by close, which says as much; some runtimes throw when nobody listens.
    socket.onerror = () => {};
    socket.onclose = (event) => handlers.closed(event.code, event.reason);
    return {
      send: (text) => socket.send(text),
      close: (code, reason) => socket.close(code, reason),
    };
  },
};

const network: Network = {
  online: () => typeof navigator === "undefined" || navigator.onLine !== false,
  subscribe(changed) {
    if (typeof addEventListener !== "function") return () => {};
    const up = (): void => changed(true);
    const down = (): void => changed(false);
    addEventListener("online", up);
    addEventListener("offline", down);
    return () => {
      removeEventListener("online", up);
      removeEventListener("offline", down);
    };
  },
};

const exclusive: Exclusive = (name, work) => {
  if (typeof navigator === "undefined" || !("locks" in navigator)) return work();
  return navigator.locks.request(name, work) as ReturnType<typeof work>;
};

/** A store that forgets everything with the page. */
export function memoryStore(): KeyValueStore {
  const entries = new Map<string, string>();
  return {
    get: (key) => entries.get(key) ?? null,
    set: (key, value) => void entries.set(key, value),
    remove: (key) => void entries.delete(key),
  };
}

/** A store in `localStorage` or `sessionStorage`, all keys behind `prefix`. */
export function webStore(storage: Storage, prefix = "corelane."): KeyValueStore {
  return {
    get: (key) => storage.getItem(prefix + key),
    set: (key, value) => storage.setItem(prefix + key, value),
    remove: (key) => storage.removeItem(prefix + key),
  };
}

/** The runtime's own clock, sockets and fetch; `localStorage` where there is one. */
export function defaultEnvironment(): Environment {
  return {
    clock,
    random,
    transport: webSockets,
    storage: usableLocalStorage() ?? memoryStore(),
    network,
    fetch: (input, init) => fetch(input, init),
    exclusive,
    archive: typeof indexedDB === "undefined" ? undefined : indexedDbArchive(indexedDB),
  };
}

/** Merely touching `localStorage` throws where the user has switched storage off. */
function usableLocalStorage(): KeyValueStore | undefined {
  try {
    return typeof localStorage === "undefined" ? undefined : webStore(localStorage);
  } catch {
    return undefined;
  }
}
