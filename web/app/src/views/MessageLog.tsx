import type { Conversation, Message, OutgoingMessage } from "@corelane/sdk";
import { type Component, createEffect, createMemo, createSignal, For, on, onCleanup, onMount, Show } from "solid-js";
import type { Chat } from "../chat.js";
import { clockTime, dayTitle, errorText } from "../format.js";
import { type Placed, startsDay, startsGroup } from "../thread.js";
import { AlertIcon, ClockIcon, DownIcon, TickIcon } from "./icons.jsx";

/** Messages per page of history. */
const PAGE = 30;
/** Closer to the end than this counts as reading the newest messages. */
const NEAR_END_PX = 80;
/** Closer to the beginning than this loads older messages. */
const NEAR_START_PX = 300;

interface Props {
  chat: Chat;
  conversation: Conversation;
  /** Takes the text of a failed message back into the composer. */
  onEdit: (text: string) => void;
}

/** The messages, oldest above. Stays at the end while one reads there, and in place while one reads above. */
export const MessageLog: Component<Props> = (props) => {
  const id = props.conversation.conversationId;
  let log!: HTMLDivElement;
  let fromBottom = 0;
  const messages = createMemo(() => {
    const now = props.chat.messages(id);
    // Memos run before the page changes: the last moment to see where the reader is.
    if (log !== undefined) fromBottom = log.scrollHeight - log.scrollTop;
    return now;
  });
  const outgoing = createMemo(() => props.chat.outgoing(id));
  const [atEnd, setAtEnd] = createSignal(true);
  const [loading, setLoading] = createSignal(false);
  const [error, setError] = createSignal("");

  const online = createMemo(() => props.chat.connection().status === "online");
  const toEnd = (): void => {
    log.scrollTop = log.scrollHeight;
    setAtEnd(true);
  };
  const read = (): void => {
    if (atEnd() && document.visibilityState === "visible") props.chat.client.markRead(id);
  };

  const loadOlder = async (): Promise<void> => {
    if (loading() || !online() || props.chat.client.hasOlder(id) === false) return;
    setLoading(true);
    setError("");
    try {
      await props.chat.client.loadOlder(id, PAGE);
      setLoading(false);
      requestAnimationFrame(fill);
    } catch (thrown) {
      setError(errorText(thrown));
      setLoading(false);
    }
  };
  /** A tall window wants more than one page. */
  const fill = (): void => {
    if (log.isConnected && log.scrollHeight <= log.clientHeight + NEAR_START_PX) void loadOlder();
  };
  const scrolled = (): void => {
    setAtEnd(log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PX);
    if (log.scrollTop < NEAR_START_PX) void loadOlder();
    read();
  };

  onMount(() => {
    toEnd();
    fill();
    const visible = (): void => read();
    document.addEventListener("visibilitychange", visible);
    // The on-screen keyboard and the growing composer take room away.
    const resize = new ResizeObserver(() => atEnd() && toEnd());
    resize.observe(log);
    onCleanup(() => {
      document.removeEventListener("visibilitychange", visible);
      resize.disconnect();
    });
  });
  createEffect(
    on([messages, outgoing], ([now, sending], before) => {
      const added = sending.length > (before?.[1].length ?? 0);
      // Whoever sends wants to see it.
      if (atEnd() || added) toEnd();
      // What was on the screen stays where it was when older messages come in above it.
      else if (now[0] !== before?.[0][0]) log.scrollTop = log.scrollHeight - fromBottom;
      if (now.length === 0) fill();
      read();
    }),
  );

  createEffect(() => {
    if (online()) fill();
  });

  const ownLast = (): boolean => messages().at(-1)?.senderId === props.chat.user()?.userId;
  const senderOf = (index: number): Placed | undefined => messages()[index];
  return (
    <div class="log-frame">
      <div
        class="log"
        ref={log}
        role="log"
        tabindex="0"
        aria-label="Messages"
        data-testid="messages"
        onScroll={scrolled}
      >
        <div class="log-top">
          <Show when={loading()}>
            <span class="spinner" aria-label="Loading older messages" />
          </Show>
          <Show when={error() !== ""}>
            <span class="error">{error()}</span>
            <button type="button" class="link" onClick={() => void loadOlder()}>
              Try again
            </button>
          </Show>
          <Show when={!loading() && props.chat.hasOlder(id) === false}>
            <span class="muted">{messages().length === 0 && outgoing().length === 0 ? "No messages yet. Say hello!" : "Beginning of the conversation"}</span>
          </Show>
        </div>
        <For each={messages()}>
          {(message, index) => <Stored chat={props.chat} conversation={props.conversation} message={message} previous={senderOf(index() - 1)} />}
        </For>
        <For each={outgoing()}>
          {(item, index) => (
            <Outgoing chat={props.chat} item={item} first={index() === 0 && !ownLast()} onEdit={props.onEdit} />
          )}
        </For>
      </div>
      <Show when={!atEnd()}>
        <button type="button" class="to-end" title="Newest messages" data-testid="to-end" onClick={toEnd}>
          <DownIcon />
          <span class="visually-hidden">Newest messages</span>
        </button>
      </Show>
    </div>
  );
};

const Stored: Component<{ chat: Chat; conversation: Conversation; message: Message; previous: Placed | undefined }> = (props) => {
  const own = (): boolean => props.message.senderId === props.chat.user()?.userId;
  const first = createMemo(() => startsGroup(props.previous, props.message));
  return (
    <>
      <Show when={startsDay(props.previous, props.message)}>
        <div class="day" role="separator">
          <span>{dayTitle(props.message.createdAtMs, Date.now())}</span>
        </div>
      </Show>
      <article
        class="message"
        classList={{ own: own(), first: first() }}
        data-testid="message"
        data-seq={props.message.seq}
        data-own={own() ? "true" : "false"}
        data-state={own() ? "sent" : undefined}
      >
        <Show when={first() && !own() && props.conversation.type === "group"}>
          <span class="sender">{props.message.sender}</span>
        </Show>
        <div class="bubble">
          <span class="text" data-testid="message-text">
            {props.message.contentBase64 === undefined ? props.message.content : "(not text)"}
          </span>
          <span class="meta">
            <time>{clockTime(props.message.createdAtMs)}</time>
            <Show when={own()}>
              <span class="state" title="Sent" data-testid="state-sent">
                <TickIcon />
                <span class="visually-hidden">Sent</span>
              </span>
            </Show>
          </span>
        </div>
      </article>
    </>
  );
};

const Outgoing: Component<{
  chat: Chat;
  item: OutgoingMessage;
  first: boolean;
  onEdit: (text: string) => void;
}> = (props) => {
  const failed = (): boolean => props.item.state === "failed";
  return (
    <article
      class="message own"
      classList={{ failed: failed(), first: props.first }}
      data-testid="message"
      data-own="true"
      data-state={props.item.state}
    >
      <div class="bubble">
        <span class="text" data-testid="message-text">
          {props.item.content}
        </span>
        <span class="meta">
          <time>{clockTime(props.item.createdAtMs)}</time>
          <StateMark state={props.item.state} />
        </span>
      </div>
      <Show when={failed()}>
        <div class="failure" role="alert">
          <span>Not sent. {errorText(props.item.error)}</span>
          <button type="button" class="link" data-testid="retry" onClick={() => props.chat.client.retry(props.item.msgId)}>
            Retry
          </button>
          <button
            type="button"
            class="link"
            data-testid="edit"
            onClick={() => {
              props.chat.discard(props.item);
              props.onEdit(props.item.content);
            }}
          >
            Edit
          </button>
          <button type="button" class="link" data-testid="discard" onClick={() => props.chat.discard(props.item)}>
            Delete
          </button>
        </div>
      </Show>
    </article>
  );
};

const LABELS = { sending: "Sending", sent: "Sent", failed: "Not sent" } as const;

const StateMark: Component<{ state: OutgoingMessage["state"] }> = (props) => (
  <span class="state" title={LABELS[props.state]} data-testid={`state-${props.state}`}>
    <Show when={props.state === "sending"}>
      <ClockIcon />
    </Show>
    <Show when={props.state === "sent"}>
      <TickIcon />
    </Show>
    <Show when={props.state === "failed"}>
      <AlertIcon />
    </Show>
    <span class="visually-hidden">{LABELS[props.state]}</span>
  </span>
);
