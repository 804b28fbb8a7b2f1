/** The login that survives a reload: tokens in storage, renewed before and when they run out. */

import type { Environment } from "./env.js";
import { asCorelaneError, localError } from "./errors.js";
import { isObject, textOf, wholeNumber } from "./frames.js";
import type { Rest, Tokens } from "./rest.js";
import type { User } from "./types.js";

/** Answers an access token; a new one when `renew` is set, because the server refused the last. */
export type TokenProvider = (renew: boolean) => Promise<string>;

interface Stored extends User {
  readonly accessToken: string;
  readonly refreshToken: string;
  readonly expiresAtMs: number;
}

const KEY = "session";

/** A token this close to its end is renewed rather than used. */
const EXPIRY_MARGIN_MS = 30_000;

/** Tokens of one user on this device. */
export class Session {
  private memory: Stored | undefined;
  private renewing: Promise<string> | undefined;

  constructor(
    private readonly env: Environment,
    private readonly rest: Rest,
  ) {
    this.memory = this.load();
  }

  /** Who is logged in on this device. */
  get user(): User | undefined {
    return this.memory === undefined ? undefined : { userId: this.memory.userId, username: this.memory.username };
  }

  /** Keeps what a login answered. */
  begin(tokens: Tokens, username: string): User {
    this.keep(tokens, username);
    return { userId: tokens.userId, username };
  }

  /** Forgets the tokens. */
  end(): void {
    this.memory = undefined;
    try {
      this.env.storage.remove(KEY);
    } catch {
      // Storage that cannot be written holds nothing to forget.
    }
  }

  /** The token for a request that must be authorized now; undefined when nobody is logged in. */
  get accessToken(): string | undefined {
    return this.memory?.accessToken;
  }

  readonly token: TokenProvider = async (renew) => {
    const stored = this.memory ?? this.load();
    if (stored === undefined) throw localError("UNAUTHENTICATED", "not logged in", false);
    this.memory = stored;
    const fresh = this.env.clock.now() < stored.expiresAtMs - EXPIRY_MARGIN_MS;
    if (!renew && fresh) return stored.accessToken;
    this.renewing ??= this.env
      .exclusive("corelane.refresh", () => this.refresh(stored.accessToken))
      .finally(() => {
        this.renewing = undefined;
      });
    return this.renewing;
  };

  /** A refresh token is spent by its use, so tabs of one browser must not use the same one twice. */
  private async refresh(refusedToken: string): Promise<string> {
    const stored = this.load() ?? this.memory;
    if (stored === undefined) throw localError("UNAUTHENTICATED", "not logged in", false);
    if (this.memory !== undefined && stored.userId !== this.memory.userId) {
      // Another tab logged in as somebody else; this one must not turn into them.
      throw localError("UNAUTHENTICATED", "another user logged in on this device", false);
    }
    if (stored.accessToken !== refusedToken && this.env.clock.now() < stored.expiresAtMs) {
      this.memory = stored;
      return stored.accessToken;
    }
    try {
      const tokens = await this.rest.refresh(stored.refreshToken);
      this.keep({ ...tokens, userId: tokens.userId || stored.userId }, stored.username);
      return tokens.accessToken;
    } catch (thrown) {
      const error = asCorelaneError(thrown);
      if (!error.temporary) this.end();
      throw error;
    }
  }

  private keep(tokens: Tokens, username: string): void {
    this.memory = {
      userId: tokens.userId,
      username,
      accessToken: tokens.accessToken,
      refreshToken: tokens.refreshToken,
      expiresAtMs: this.env.clock.now() + tokens.expiresInS * 1000,
    };
    try {
      this.env.storage.set(KEY, JSON.stringify(this.memory));
    } catch {
      // The session then lasts as long as the page does.
    }
  }

  private load(): Stored | undefined {
    let raw: unknown;
    try {
      raw = JSON.parse(this.env.storage.get(KEY) ?? "null");
    } catch {
      return undefined;
    }
    if (!isObject(raw)) return undefined;
    const userId = textOf(raw["userId"]);
    const accessToken = textOf(raw["accessToken"]);
    if (userId === undefined || accessToken === undefined) return undefined;
    return {
      userId,
      username: textOf(raw["username"]) ?? "",
      accessToken,
      refreshToken: textOf(raw["refreshToken"]) ?? "",
      expiresAtMs: wholeNumber(raw["expiresAtMs"]) ?? 0,
    };
  }
}
