// What a login brings back of what was missed.

/** Most messages of one conversation that a login brings back. */
const RESUME_MESSAGES_MAX = 1000;

/**
 * One RESUMED frame for each point, in their order.
 * @param {Map<string, { members: Map<string, unknown>, messages: { seq: number }[] }>} conversations
 * @param {string} userId
 * @param {{ conversation_id: string, seq: number }[]} points
 */
export function resumed(conversations, userId, points) {
  return points.map(({ conversation_id: id, seq }) => {
    const conversation = conversations.get(id);
    const messages = conversation?.members.has(userId) ? conversation.messages : undefined;
    const maxSeq = messages?.at(-1)?.seq ?? 0;
    const recovered = messages !== undefined && seq <= maxSeq && maxSeq - seq <= RESUME_MESSAGES_MAX;
    const payload = recovered ? messages.filter((row) => row.seq > seq) : [];
    return { cmd: 14, conversation_id: id, recovered, max_seq: maxSeq, payload };
  });
}
