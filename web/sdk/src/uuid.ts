/** UUID version 7 (RFC 9562 section 5.7): time-ordered, made by the client before it sends. */

import type { Random } from "./env.js";

/** A UUIDv7 for `nowMs` with 74 random bits. */
export function uuidV7(nowMs: number, random: Random): string {
  const bytes = random.bytes(16);
  let rest = Math.max(0, Math.floor(nowMs));
  for (let i = 5; i >= 0; i--) {
    bytes[i] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  bytes[6] = 0x70 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
