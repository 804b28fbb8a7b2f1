/** Words for times, names and errors. Pure, so tests need no browser. */

/** Anything with the stable name of an error. */
interface Named {
  readonly name: string;
  readonly detail?: string;
}

const ERROR_TEXTS: Record<string, string> = {
  ALREADY_EXISTS: "This name is already taken.",
  BUSY: "The server is busy. Please try again in a moment.",
  CONNECTION_LOST: "The connection was lost. Please try again.",
  CONVERSATION_NOT_FOUND: "There is no such conversation.",
  FORBIDDEN: "You are not allowed to do this.",
  INTERNAL: "The server had a problem. Please try again.",
  NETWORK: "The server cannot be reached. Check your connection.",
  NOT_A_MEMBER: "You are not a member of this conversation.",
  NOT_CONNECTED: "There is no connection to the server.",
  RATE_LIMITED: "Too many requests. Please wait a moment.",
  TIMEOUT: "The server did not answer in time.",
  TOO_LARGE: "This message is too long.",
  USER_NOT_FOUND: "There is no user with this name.",
};

/** A sentence for people about an error. */
export function errorText(error: unknown): string {
  if (!isNamed(error)) return "Something went wrong.";
  // What exactly is wrong with a field only the server knows.
  if (error.name === "BAD_REQUEST" && error.detail) return sentence(error.detail);
  return ERROR_TEXTS[error.name] ?? (error.detail ? sentence(error.detail) : "Something went wrong.");
}

/** The sentence for a failed login: the server does not tell which of the two was wrong. */
export function loginErrorText(error: unknown): string {
  const wrong = isNamed(error) && (error.name === "UNAUTHENTICATED" || error.name === "USER_NOT_FOUND");
  return wrong ? "Wrong user name or password." : errorText(error);
}

function isNamed(error: unknown): error is Named {
  return typeof error === "object" && error !== null && typeof (error as Named).name === "string";
}

function sentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

/** Up to two letters that stand for a name. */
export function initials(name: string): string {
  const words = name.split(/[\s._-]+/u).filter((word) => word !== "");
  const letters = words.length > 1 ? [words[0], words[1]] : [words[0]];
  return letters.map((word) => [...(word ?? "?")][0]!.toLocaleUpperCase()).join("");
}

/** Which of `count` colours a name gets; the same everywhere. */
export function colourOf(name: string, count: number): number {
  let hash = 0;
  for (const char of name) hash = (Math.imul(hash, 31) + char.codePointAt(0)!) >>> 0;
  return hash % count;
}

/** Hour and minute. */
export function clockTime(ms: number): string {
  return new Date(ms).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

/** Days between two moments, by the calendar of this device. */
export function daysBetween(earlierMs: number, laterMs: number): number {
  const midnight = (ms: number): number => new Date(ms).setHours(0, 0, 0, 0);
  // Rounded, because days with a clock change have 23 or 25 hours.
  return Math.round((midnight(laterMs) - midnight(earlierMs)) / 86_400_000);
}

/** Headline of a day in a conversation. */
export function dayTitle(ms: number, nowMs: number): string {
  const days = daysBetween(ms, nowMs);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  const sameYear = new Date(ms).getFullYear() === new Date(nowMs).getFullYear();
  return new Date(ms).toLocaleDateString(undefined, {
    weekday: "long",
    day: "numeric",
    month: "long",
    ...(sameYear ? {} : { year: "numeric" }),
  });
}

/** Short time for the list: the hour today, the day before that. */
export function listTime(ms: number, nowMs: number): string {
  if (ms <= 0) return "";
  const days = daysBetween(ms, nowMs);
  if (days <= 0) return clockTime(ms);
  if (days === 1) return "Yesterday";
  if (days < 7) return new Date(ms).toLocaleDateString(undefined, { weekday: "short" });
  return new Date(ms).toLocaleDateString(undefined, { day: "2-digit", month: "2-digit", year: "2-digit" });
}

/** A counter that stays narrow. */
export function badge(count: number): string {
  return count > 99 ? "99+" : String(count);
}

/** The first line of a message, for the list. */
export function preview(content: string, limit = 120): string {
  const line = content.replace(/\s+/gu, " ").trim();
  const chars = [...line.slice(0, (limit + 1) * 2)];
  return chars.length > limit ? `${chars.slice(0, limit).join("")}…` : line;
}

/** User names from what a person typed: separated by commas or blanks, each once, `@` allowed in front. */
export function userNames(text: string): string[] {
  const names = text.split(/[\s,;]+/u).map((name) => name.replace(/^@/, ""));
  return [...new Set(names.filter((name) => name !== ""))];
}
