import type { Conversation } from "@corelane/sdk";
import { type Component, createSignal, For, onCleanup, Show } from "solid-js";
import type { Chat } from "../chat.js";
import { badge, listTime, preview } from "../format.js";
import { titleOf } from "../title.js";
import { Avatar } from "./Avatar.jsx";
import { LogoutIcon, PlusIcon } from "./icons.jsx";

/** The left pane: who is logged in, and all conversations. */
export const ConversationList: Component<{ chat: Chat; onNew: () => void }> = (props) => {
  // "14:05" becomes "Yesterday" by itself.
  const [nowMs, setNowMs] = createSignal(Date.now());
  const timer = setInterval(() => setNowMs(Date.now()), 60_000);
  onCleanup(() => clearInterval(timer));

  let list: HTMLUListElement | undefined;
  const move = (event: KeyboardEvent): void => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step === 0 || list === undefined) return;
    const rows = [...list.querySelectorAll("button")];
    const at = rows.indexOf(document.activeElement as HTMLButtonElement);
    event.preventDefault();
    rows[Math.min(rows.length - 1, Math.max(0, at + step))]?.focus();
  };

  return (
    <nav class="pane list-pane" aria-label="Conversations" data-testid="conversation-pane">
      <header class="bar">
        <Avatar name={props.chat.user()?.username ?? "?"} />
        <div class="bar-title">
          <strong data-testid="own-name">{props.chat.user()?.username}</strong>
        </div>
        <button type="button" class="icon-button" title="New conversation" data-testid="new-chat" onClick={() => props.onNew()}>
          <PlusIcon />
          <span class="visually-hidden">New conversation</span>
        </button>
        <button
          type="button"
          class="icon-button"
          title="Log out"
          data-testid="logout"
          onClick={() => void props.chat.logout()}
        >
          <LogoutIcon />
          <span class="visually-hidden">Log out</span>
        </button>
      </header>
      <ul class="conversations" ref={(el) => (list = el)} onKeyDown={move} data-testid="conversation-list">
        <For each={props.chat.conversations()}>
          {(conversation) => <Row chat={props.chat} conversation={conversation} nowMs={nowMs()} />}
        </For>
      </ul>
      <Show when={props.chat.conversations().length === 0}>
        <p class="placeholder muted" data-testid="list-empty">
          {props.chat.synced() ? "No conversations yet." : "Loading…"}
        </p>
      </Show>
    </nav>
  );
};

const Row: Component<{ chat: Chat; conversation: Conversation; nowMs: number }> = (props) => {
  const title = (): string => titleOf(props.conversation);
  const active = (): boolean => props.chat.activeId() === props.conversation.conversationId;
  const last = (): string => {
    const message = props.conversation.lastMessage;
    if (message === null) return "No messages yet";
    const own = message.senderId === props.chat.user()?.userId;
    const who = own ? "You: " : props.conversation.type === "group" ? `${message.sender}: ` : "";
    return who + preview(message.content);
  };
  return (
    <li>
      <button
        type="button"
        class="conversation"
        classList={{ unread: props.conversation.unread > 0 }}
        aria-current={active() ? "true" : undefined}
        data-testid="conversation"
        data-conversation-id={props.conversation.conversationId}
        onClick={() => props.chat.open(props.conversation.conversationId)}
      >
        <Avatar name={title()} />
        <span class="conversation-text">
          <span class="conversation-top">
            <span class="conversation-name" data-testid="conversation-name">
              {title()}
            </span>
            <time class="conversation-time">{listTime(props.conversation.lastActiveAtMs, props.nowMs)}</time>
          </span>
          <span class="conversation-bottom">
            <span class="conversation-last" data-testid="conversation-last">
              {last()}
            </span>
            <Show when={props.conversation.unread > 0}>
              <span class="badge" data-testid="conversation-unread">
                {badge(props.conversation.unread)}
                <span class="visually-hidden"> unread messages</span>
              </span>
            </Show>
          </span>
        </span>
      </button>
    </li>
  );
};
