/** Exponential backoff with full jitter. */

import type { Random } from "./env.js";

/** Bounds of the delays. */
export interface BackoffOptions {
  /** Upper bound of the first delay. */
  baseMs: number;
  /** Upper bound of every delay. */
  maxMs: number;
}

/** Highest delay that `attempt` (0 is the first) may draw. */
export function backoffCeilingMs(attempt: number, options: BackoffOptions): number {
  // Above 2^30 the product is past any sensible maximum; the clamp keeps it finite.
  return Math.min(options.maxMs, options.baseMs * 2 ** Math.min(Math.max(0, attempt), 30));
}

/**
 * A delay drawn evenly from [0, ceiling). Clients that lost the same server spread over the whole
 * interval instead of coming back in waves.
 */
export function backoffMs(attempt: number, options: BackoffOptions, random: Random): number {
  return Math.floor(random.next() * backoffCeilingMs(attempt, options));
}
