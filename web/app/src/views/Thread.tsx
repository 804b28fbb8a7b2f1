import type { Conversation } from "@corelane/sdk";
import { type Component, createSignal, Show } from "solid-js";
import type { Chat } from "../chat.js";
import { titleOf } from "../title.js";
import { Avatar } from "./Avatar.jsx";
import { Composer } from "./Composer.jsx";
import { Details } from "./Details.jsx";
import { BackIcon, PeopleIcon } from "./icons.jsx";
import { MessageLog } from "./MessageLog.jsx";

/** The right pane: one conversation. */
export const Thread: Component<{ chat: Chat; conversationId: string }> = (props) => {
  const conversation = (): Conversation | undefined => props.chat.conversation(props.conversationId);
  return (
    <Show when={conversation()} fallback={<Missing chat={props.chat} />}>
      {(found) => <Open chat={props.chat} conversation={found()} />}
    </Show>
  );
};

const Missing: Component<{ chat: Chat }> = (props) => (
  <div class="placeholder">
    <p class="muted">{props.chat.synced() ? "This conversation is not on your list." : "Loading…"}</p>
    <Show when={props.chat.synced()}>
      <button type="button" class="button" onClick={() => props.chat.open(null)}>
        Back to the list
      </button>
    </Show>
  </div>
);

const Open: Component<{ chat: Chat; conversation: Conversation }> = (props) => {
  const [details, setDetails] = createSignal(false);
  const [refill, setRefill] = createSignal("");
  const id = props.conversation.conversationId;
  const title = (): string => titleOf(props.conversation);
  const subtitle = (): string => {
    if (props.conversation.type === "direct") return "Direct message";
    const count = props.conversation.memberCount;
    return count === 1 ? "1 member" : `${count} members`;
  };
  return (
    <section class="thread" aria-label={`Conversation with ${title()}`} data-testid="thread" data-conversation-id={id}>
      <header class="bar">
        <button type="button" class="icon-button back" title="Back" data-testid="back" onClick={() => props.chat.open(null)}>
          <BackIcon />
          <span class="visually-hidden">Back to the list</span>
        </button>
        <Avatar name={title()} />
        <div class="bar-title">
          <h1 data-testid="thread-title">{title()}</h1>
          <span class="muted" data-testid="thread-subtitle">
            {subtitle()}
          </span>
        </div>
        <button type="button" class="icon-button" title="Details" data-testid="details" onClick={() => setDetails(true)}>
          <PeopleIcon />
          <span class="visually-hidden">Members and details</span>
        </button>
      </header>
      <MessageLog chat={props.chat} conversation={props.conversation} onEdit={setRefill} />
      <Composer chat={props.chat} conversationId={id} refill={refill()} onRefilled={() => setRefill("")} />
      <Show when={details()}>
        <Details chat={props.chat} conversation={props.conversation} onClose={() => setDetails(false)} />
      </Show>
    </section>
  );
};
