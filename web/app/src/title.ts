/** What to call a conversation. */

import type { Conversation } from "@corelane/sdk";

/** Its name; groups without one go by their id. */
export function titleOf(conversation: Pick<Conversation, "name" | "conversationId">): string {
  return conversation.name.trim() || conversation.conversationId;
}
