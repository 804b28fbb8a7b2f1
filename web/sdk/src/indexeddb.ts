/** The archive in IndexedDB. */

import type { ArchivedRoom, ArchiveStore } from "./types.js";

const STORE = "rooms";

/** Keeps conversations in the database `name`; opened at first use. */
export function indexedDbArchive(factory: IDBFactory, name = "corelane"): ArchiveStore {
  let opened: Promise<IDBDatabase> | undefined;
  const database = (): Promise<IDBDatabase> => {
    opened ??= open(factory, name, () => {
      opened = undefined;
    });
    return opened;
  };
  const write = async (work: (store: IDBObjectStore) => void): Promise<void> => {
    const transaction = (await database()).transaction(STORE, "readwrite");
    work(transaction.objectStore(STORE));
    await finished(transaction);
  };
  return {
    async load(userId) {
      const store = (await database()).transaction(STORE).objectStore(STORE);
      const rows = await answered(store.getAll(ofUser(userId)));
      return rows.map((row: { room?: unknown }) => row.room);
    },
    put: (userId, rooms: readonly ArchivedRoom[]) =>
      write((store) => rooms.forEach((room) => store.put({ room }, [userId, room.info.conversationId]))),
    remove: (userId, ids) => write((store) => ids.forEach((id) => store.delete([userId, id]))),
    clear: (userId) => write((store) => void store.delete(ofUser(userId))),
  };
}

/** All keys `[userId, anything]`: in key order an array comes after every string. */
function ofUser(userId: string): IDBKeyRange {
  return IDBKeyRange.bound([userId], [userId, []]);
}

function open(factory: IDBFactory, name: string, lost: () => void): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = factory.open(name, 1);
    const failed = (): void => {
      lost();
      reject(request.error ?? new Error("the database cannot be opened"));
    };
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onerror = failed;
    request.onblocked = failed;
    request.onsuccess = () => {
      const database = request.result;
      // Another tab wants a newer version, or the user cleared the site's data.
      database.onversionchange = () => {
        lost();
        database.close();
      };
      database.onclose = lost;
      resolve(database);
    };
  });
}

function answered<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the database did not answer"));
  });
}

function finished(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (): void => reject(transaction.error ?? new Error("the database did not write"));
    transaction.oncomplete = () => resolve();
    transaction.onabort = failed;
    transaction.onerror = failed;
  });
}
