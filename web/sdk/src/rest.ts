/** The REST calls that come before a connection: accounts and tokens. Errors are RFC 9457 documents. */

import type { Environment } from "./env.js";
import { CorelaneError, type Failure, localError } from "./errors.js";
import { isObject, type Json, textOf, wholeNumber } from "./frames.js";

/** What a login or a refresh answers. */
export interface Tokens {
  readonly userId: string;
  readonly accessToken: string;
  readonly refreshToken: string;
  /** Seconds until the access token expires. */
  readonly expiresInS: number;
}

/** Names of refusals whose document carries nothing but the HTTP status. */
const STATUS_NAMES: Record<number, string> = {
  400: "BAD_REQUEST",
  401: "UNAUTHENTICATED",
  403: "FORBIDDEN",
  404: "NOT_FOUND",
  409: "ALREADY_EXISTS",
  413: "TOO_LARGE",
  429: "RATE_LIMITED",
  503: "BUSY",
};

/** How long one REST call may take. */
const TIMEOUT_MS = 20_000;

/** Calls under `/api/v1`. */
export class Rest {
  constructor(
    private readonly env: Environment,
    private readonly baseUrl: string,
  ) {}

  async createUser(username: string, password: string, nickname?: string): Promise<void> {
    await this.post("/users", { username, password, ...(nickname ? { nickname } : {}) });
  }

  async login(username: string, password: string, deviceId: string, deviceClass: string): Promise<Tokens> {
    return readTokens(
      await this.post("/login", { username, password, device_id: deviceId, device_class: deviceClass }),
    );
  }

  async refresh(refreshToken: string): Promise<Tokens> {
    return readTokens(await this.post("/token/refresh", { refresh_token: refreshToken }));
  }

  /** Makes every refresh token of the user worthless. */
  async logout(accessToken: string): Promise<void> {
    await this.post("/logout", {}, accessToken);
  }

  private async post(path: string, body: Json, accessToken?: string): Promise<unknown> {
    const headers: Record<string, string> = { "content-type": "application/json", accept: "application/json" };
    if (accessToken !== undefined) headers["authorization"] = `Bearer ${accessToken}`;
    const response = await this.fetch(`${this.baseUrl}/api/v1${path}`, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
    });
    const text = await response.text().catch(() => "");
    const answer = parse(text);
    if (!response.ok) throw new CorelaneError(readProblem(response, answer));
    return answer;
  }

  private async fetch(url: string, init: RequestInit): Promise<Response> {
    const abort = new AbortController();
    const cancel = this.env.clock.after(TIMEOUT_MS, () => abort.abort());
    try {
      return await this.env.fetch(url, { ...init, signal: abort.signal });
    } catch {
      throw localError("NETWORK", "the server cannot be reached", true);
    } finally {
      cancel();
    }
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function readTokens(answer: unknown): Tokens {
  const body = isObject(answer) ? answer : {};
  const accessToken = textOf(body["access_token"]);
  if (accessToken === undefined) throw localError("BAD_ANSWER", "the server's answer has no access token", true);
  return {
    userId: textOf(body["user_id"]) ?? "",
    accessToken,
    refreshToken: textOf(body["refresh_token"]) ?? "",
    expiresInS: wholeNumber(body["expires_in"]) ?? 0,
  };
}

/** `code` is the stable name; a number or a nested `error` is understood as well. */
function readProblem(response: Response, answer: unknown): Failure {
  const document = isObject(answer) ? answer : {};
  const nested = isObject(document["error"]) ? document["error"] : {};
  const { status } = response;
  const name =
    textOf(document["code"]) ??
    textOf(document["name"]) ??
    textOf(nested["name"]) ??
    STATUS_NAMES[status] ??
    (status >= 500 ? "INTERNAL" : "BAD_REQUEST");
  const retryAfterS = Number(response.headers.get("retry-after") ?? "");
  return {
    name,
    code: wholeNumber(document["code"]) ?? status,
    temporary: typeof document["temporary"] === "boolean" ? document["temporary"] : status === 429 || status >= 500,
    retryAfterMs:
      wholeNumber(document["retry_after_ms"]) ?? (Number.isFinite(retryAfterS) ? Math.max(0, retryAfterS) * 1000 : 0),
    detail: textOf(document["detail"]) ?? textOf(nested["detail"]) ?? textOf(document["title"]) ?? "",
  };
}
