/** Errors of requests, and what a close code asks of the client. */

/** The shape of a failure, on the wire and in the outbox. */
export interface Failure {
  /** Stable name, for example `NOT_A_MEMBER`. */
  name: string;
  /** The number that belongs to the name; 0 for errors the client itself found. */
  code: number;
  /** Whether the same request may succeed later. */
  temporary: boolean;
  /** Milliseconds to wait before the next try; 0 when the server named none. */
  retryAfterMs: number;
  /** A sentence for people. */
  detail: string;
}

/** A request failed. `reason` is the stable name to branch on. */
export class CorelaneError extends Error implements Failure {
  readonly code: number;
  readonly temporary: boolean;
  readonly retryAfterMs: number;
  readonly detail: string;

  constructor(failure: Failure) {
    super(failure.detail === "" ? failure.name : `${failure.name}: ${failure.detail}`);
    this.name = failure.name;
    this.code = failure.code;
    this.temporary = failure.temporary;
    this.retryAfterMs = failure.retryAfterMs;
    this.detail = failure.detail;
  }

  /** The failure as plain data, fit for storage. */
  toFailure(): Failure {
    const { name, code, temporary, retryAfterMs, detail } = this;
    return { name, code, temporary, retryAfterMs, detail };
  }
}

/** An error the client found by itself: no server said it, so it has no number. */
export function localError(name: string, detail: string, temporary: boolean): CorelaneError {
  return new CorelaneError({ name, code: 0, temporary, retryAfterMs: 0, detail });
}

/** Any thrown thing as a CorelaneError. */
export function asCorelaneError(thrown: unknown): CorelaneError {
  if (thrown instanceof CorelaneError) return thrown;
  return localError("NETWORK", thrown instanceof Error ? thrown.message : String(thrown), true);
}

/** What to do after the connection closed. */
export type CloseAction =
  /** Come back at once. */
  | "now"
  /** Come back after the delay the server gave, or a moment when it gave none. */
  | "delayed"
  /** Get a new token first. */
  | "reauthenticate"
  /** Do not come back. */
  | "stop"
  /** An ordinary failure: exponential backoff. */
  | "backoff";

/** The range of a close code alone decides; unknown codes of a range need no update here. */
export function closeAction(code: number): CloseAction {
  if (code >= 4000 && code <= 4099) return "now";
  if (code >= 4100 && code <= 4199) return "delayed";
  if (code >= 4200 && code <= 4299) return "reauthenticate";
  if (code >= 4900 && code <= 4999) return "stop";
  return "backoff";
}

/** The same device logged in elsewhere (close code). */
export const CLOSE_REPLACED = 4900;
