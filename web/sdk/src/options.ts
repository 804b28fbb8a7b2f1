/** Settings of the client and their defaults. */

import type { BackoffOptions } from "./backoff.js";

/** Timing and limits; every field has a default in `DEFAULT_TUNING`. */
export interface Tuning {
  /** Delays between connection attempts. */
  backoff: BackoffOptions;
  /** From opening the socket to the login's answer. */
  connectTimeoutMs: number;
  /** How long a connection must hold before the backoff starts over. */
  stableAfterMs: number;
  /** Used when the server names no sensible interval. */
  heartbeatMs: number;
  /** Silence after a heartbeat that counts as a dead connection. */
  heartbeatTimeoutMs: number;
  /** How long one request waits for its answer. */
  answerTimeoutMs: number;
  /** How long a call may take in all, waiting for a connection and retries included. */
  callTimeoutMs: number;
  /** Delays between retries of a refused or unanswered request that named no delay. */
  retry: BackoffOptions;
  /** Tries of one message that the server answers with a fault of its own, before it counts as failed. */
  sendAttempts: number;
  /** How long a hole may last before it is pulled: a push may overtake another by a moment. */
  gapGraceMs: number;
  /** Messages per pull. */
  pullLimit: number;
  /** Pulls at the same time. */
  pullConcurrency: number;
  /** Conversations per sync page. */
  syncLimit: number;
  /**
   * Most messages of one conversation that are caught up after an absence. Beyond it the client goes on
   * with the newest and leaves the rest to `loadOlder`.
   */
  catchUpLimit: number;
  /** Messages kept in memory per conversation; the oldest go first and come back by `loadOlder`. */
  historyLimit: number;
  /** Delay that gathers read marks into one. */
  readDelayMs: number;
  /** Longest send frame in bytes that is handed to the server at all. */
  sendFrameMaxBytes: number;
}

/** The defaults. */
export const DEFAULT_TUNING: Tuning = {
  backoff: { baseMs: 500, maxMs: 30_000 },
  connectTimeoutMs: 15_000,
  stableAfterMs: 10_000,
  heartbeatMs: 30_000,
  heartbeatTimeoutMs: 10_000,
  answerTimeoutMs: 15_000,
  callTimeoutMs: 30_000,
  retry: { baseMs: 500, maxMs: 10_000 },
  sendAttempts: 8,
  gapGraceMs: 200,
  pullLimit: 200,
  pullConcurrency: 3,
  syncLimit: 50,
  catchUpLimit: Number.POSITIVE_INFINITY,
  historyLimit: 5000,
  readDelayMs: 700,
  // The server closes the connection on messages above 64 KiB; refusing them here keeps it open.
  sendFrameMaxBytes: 60_000,
};
