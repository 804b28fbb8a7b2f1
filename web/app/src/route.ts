/** The open conversation lives in the address, so reload and the back key work. */

const PREFIX = "#/c/";

/** The conversation an address names. */
export function conversationOf(hash: string): string | null {
  if (!hash.startsWith(PREFIX)) return null;
  try {
    return decodeURIComponent(hash.slice(PREFIX.length)) || null;
  } catch {
    return null;
  }
}

/** The address of a conversation, or of the list. */
export function hashOf(conversationId: string | null): string {
  return conversationId === null ? "#/" : PREFIX + encodeURIComponent(conversationId);
}
