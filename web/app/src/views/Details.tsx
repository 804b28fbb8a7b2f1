import type { Conversation, Member } from "@corelane/sdk";
import { type Component, createSignal, For, onMount, Show } from "solid-js";
import type { Chat } from "../chat.js";
import { errorText } from "../format.js";
import { Avatar } from "./Avatar.jsx";
import { Dialog } from "./Dialog.jsx";

/** Members of a conversation; for groups also the id to share, and the way out. */
export const Details: Component<{ chat: Chat; conversation: Conversation; onClose: () => void }> = (props) => {
  const [members, setMembers] = createSignal<readonly Member[]>([]);
  const [cursor, setCursor] = createSignal(0);
  const [more, setMore] = createSignal(false);
  const [loading, setLoading] = createSignal(true);
  const [error, setError] = createSignal("");

  const load = async (): Promise<void> => {
    setLoading(true);
    setError("");
    try {
      const page = await props.chat.client.members(props.conversation.conversationId, cursor());
      setMembers((before) => [...before, ...page.members]);
      setCursor(page.nextCursor);
      setMore(page.hasMore);
    } catch (thrown) {
      setError(errorText(thrown));
    } finally {
      setLoading(false);
    }
  };
  onMount(() => void load());

  return (
    <Dialog title="Details" testId="details-dialog" onClose={() => props.onClose()}>
      <Show when={props.conversation.type === "group"}>
        <GroupId id={props.conversation.conversationId} />
      </Show>
      <h3>Members</h3>
      <ul class="members" data-testid="member-list">
        <For each={members()}>{(member) => <MemberRow member={member} own={member.userId === props.chat.user()?.userId} />}</For>
      </ul>
      <Show when={loading()}>
        <p class="muted">Loading…</p>
      </Show>
      <Show when={more() && !loading()}>
        <button type="button" class="button wide" onClick={() => void load()}>
          Show more
        </button>
      </Show>
      <p class="error" role="alert">
        {error()}
      </p>
      <Show when={props.conversation.type === "group"}>
        <Leave chat={props.chat} conversation={props.conversation} onError={setError} onLeft={() => props.onClose()} />
      </Show>
    </Dialog>
  );
};

const MemberRow: Component<{ member: Member; own: boolean }> = (props) => (
  <li data-testid="member">
    <Avatar name={props.member.username} small />
    <span class="member-name">
      {props.member.nickname}
      <Show when={props.member.nickname !== props.member.username}>
        <span class="muted"> @{props.member.username}</span>
      </Show>
      <Show when={props.own}>
        <span class="muted"> (you)</span>
      </Show>
    </span>
    <Show when={props.member.role !== "member" && props.member.role !== ""}>
      <span class="tag">{props.member.role}</span>
    </Show>
  </li>
);

const GroupId: Component<{ id: string }> = (props) => {
  const [copied, setCopied] = createSignal(false);
  // Pages without TLS have no clipboard; the id can be selected all the same.
  const canCopy = typeof navigator.clipboard?.writeText === "function";
  const copy = (): void => {
    navigator.clipboard.writeText(props.id).then(
      () => setCopied(true),
      () => setCopied(false),
    );
  };
  return (
    <div class="group-id">
      <span class="muted">Group id</span>
      <code data-testid="group-id">{props.id}</code>
      <Show when={canCopy}>
        <button type="button" class="link" onClick={copy}>
          {copied() ? "Copied" : "Copy"}
        </button>
      </Show>
    </div>
  );
};

const Leave: Component<{
  chat: Chat;
  conversation: Conversation;
  onError: (text: string) => void;
  onLeft: () => void;
}> = (props) => {
  const [sure, setSure] = createSignal(false);
  const leave = async (): Promise<void> => {
    if (!sure()) return void setSure(true);
    try {
      await props.chat.client.leave(props.conversation.conversationId);
      props.onLeft();
      props.chat.open(null);
    } catch (thrown) {
      setSure(false);
      props.onError(errorText(thrown));
    }
  };
  return (
    <button type="button" class="button danger wide" data-testid="leave-group" onClick={() => void leave()}>
      {sure() ? "Really leave?" : "Leave group"}
    </button>
  );
};
