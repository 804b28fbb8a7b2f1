import { type Component, createEffect, createSignal, onMount } from "solid-js";
import type { Chat } from "../chat.js";
import { SendIcon } from "./icons.jsx";

/** On-screen keyboards have no Shift+Enter; there Enter makes a new line. */
const touchOnly = (): boolean => matchMedia("(hover: none) and (pointer: coarse)").matches;

interface Props {
  chat: Chat;
  conversationId: string;
  /** Text to take over, of a message that could not be sent. */
  refill: string;
  onRefilled: () => void;
}

/** Where one writes. */
export const Composer: Component<Props> = (props) => {
  const [text, setText] = createSignal(props.chat.draft(props.conversationId));
  let area: HTMLTextAreaElement | undefined;

  const grow = (): void => {
    if (area === undefined) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight + 2, 160)}px`;
  };
  const change = (value: string): void => {
    setText(value);
    props.chat.keepDraft(props.conversationId, value);
    if (area !== undefined && area.value !== value) area.value = value;
    grow();
  };
  onMount(() => {
    grow();
    if (!touchOnly()) area?.focus();
  });
  createEffect(() => {
    if (props.refill === "") return;
    change(props.refill);
    props.onRefilled();
    area?.focus();
  });

  const send = (): void => {
    if (text().trim() === "") return;
    props.chat.client.send(props.conversationId, text());
    change("");
    area?.focus();
  };
  const keyed = (event: KeyboardEvent): void => {
    // Enter also ends the composition of Asian scripts; that is not "send".
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || touchOnly()) return;
    event.preventDefault();
    send();
  };

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label class="visually-hidden" for="composer-text">
        Message
      </label>
      <textarea
        id="composer-text"
        ref={(el) => (area = el)}
        rows={1}
        placeholder="Message"
        data-testid="composer"
        value={text()}
        onInput={(event) => change(event.currentTarget.value)}
        onKeyDown={keyed}
      />
      <button type="submit" class="send" title="Send" data-testid="send" disabled={text().trim() === ""}>
        <SendIcon />
        <span class="visually-hidden">Send</span>
      </button>
    </form>
  );
};
