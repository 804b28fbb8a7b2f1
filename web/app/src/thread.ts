/** How messages stand together on the screen. */

import { daysBetween } from "./format.js";

/** What grouping needs to know of a message. */
export interface Placed {
  readonly senderId: string;
  readonly createdAtMs: number;
}

/** Messages of one sender closer than this share one headline. */
const GROUP_MS = 5 * 60_000;

/** Whether a day's headline belongs above `current`. */
export function startsDay(previous: Placed | undefined, current: Placed): boolean {
  return previous === undefined || daysBetween(previous.createdAtMs, current.createdAtMs) !== 0;
}

/** Whether the sender's name belongs above `current`. */
export function startsGroup(previous: Placed | undefined, current: Placed): boolean {
  if (previous === undefined || startsDay(previous, current)) return true;
  return previous.senderId !== current.senderId || current.createdAtMs - previous.createdAtMs > GROUP_MS;
}
