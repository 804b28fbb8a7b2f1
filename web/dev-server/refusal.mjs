// The names of the protocol's errors, as answers and as problem documents.

const ERRORS = {
  BAD_REQUEST: [400, false],
  UNAUTHENTICATED: [401, false],
  FORBIDDEN: [403, false],
  CONVERSATION_NOT_FOUND: [404, false],
  USER_NOT_FOUND: [405, false],
  NOT_A_MEMBER: [406, false],
  ALREADY_EXISTS: [409, false],
  TOO_LARGE: [413, false],
  UNKNOWN_COMMAND: [420, false],
  RATE_LIMITED: [429, true],
  INTERNAL: [500, true],
  BUSY: [503, true],
};

const HTTP_STATUS = { USER_NOT_FOUND: 404, NOT_A_MEMBER: 403, UNKNOWN_COMMAND: 400 };

/** A refusal with one of the protocol's names. */
export class Refusal extends Error {
  /** @param {keyof typeof ERRORS} name @param {string} detail @param {number} [retryAfterMs] */
  constructor(name, detail, retryAfterMs = 0) {
    super(detail);
    this.refusal = name;
    this.retryAfterMs = retryAfterMs;
  }

  frame() {
    const [code, temporary] = ERRORS[this.refusal];
    return {
      code,
      error: { name: this.refusal, temporary, retry_after_ms: this.retryAfterMs, detail: this.message },
    };
  }

  problem() {
    const [code] = ERRORS[this.refusal];
    const status = HTTP_STATUS[this.refusal] ?? code;
    return { type: "about:blank", title: this.refusal, status, code: this.refusal, detail: this.message };
  }
}
