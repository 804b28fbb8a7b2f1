import type { Conversation } from "@corelane/sdk";
import { type Component, createSignal, For, Match, Switch } from "solid-js";
import type { Chat } from "../chat.js";
import { errorText, userNames } from "../format.js";
import { Dialog } from "./Dialog.jsx";

type Kind = "direct" | "group" | "join";

const KINDS: ReadonlyArray<readonly [Kind, string]> = [
  ["direct", "Direct"],
  ["group", "Group"],
  ["join", "Join"],
];

const SUBMIT: Record<Kind, string> = { direct: "Start chat", group: "Create group", join: "Join group" };

/** Starts a direct chat or a group, or joins one. */
export const NewChat: Component<{ chat: Chat; onClose: () => void }> = (props) => {
  const [kind, setKind] = createSignal<Kind>("direct");
  const [error, setError] = createSignal("");
  const [busy, setBusy] = createSignal(false);

  const run = async (form: FormData): Promise<Conversation> => {
    const field = (name: string): string => String(form.get(name) ?? "").trim();
    const { client } = props.chat;
    switch (kind()) {
      case "direct":
        return client.createDirect(field("username").replace(/^@/, ""));
      case "group":
        return client.createGroup({ name: field("name"), members: userNames(field("members")) });
      case "join":
        return client.join(field("group"));
    }
  };

  const submit = async (event: SubmitEvent & { currentTarget: HTMLFormElement }): Promise<void> => {
    event.preventDefault();
    if (busy()) return;
    setBusy(true);
    setError("");
    try {
      const conversation = await run(new FormData(event.currentTarget));
      props.onClose();
      props.chat.open(conversation.conversationId);
    } catch (thrown) {
      setError(errorText(thrown));
    } finally {
      setBusy(false);
    }
  };

  return (
    <Dialog title="New conversation" testId="new-chat-dialog" onClose={() => props.onClose()}>
      <div class="segments" role="group" aria-label="What to start">
        <For each={KINDS}>
          {([value, label]) => (
            <button
              type="button"
              aria-pressed={kind() === value}
              data-testid={`new-${value}`}
              onClick={() => {
                setKind(value);
                setError("");
              }}
            >
              {label}
            </button>
          )}
        </For>
      </div>
      <form onSubmit={(event) => void submit(event)} autocomplete="off">
        <Switch>
          <Match when={kind() === "direct"}>
            <label>
              User name
              <input name="username" data-testid="direct-username" autocapitalize="none" spellcheck={false} required autofocus />
            </label>
          </Match>
          <Match when={kind() === "group"}>
            <label>
              Group name
              <input name="name" data-testid="group-name" maxLength={64} required />
            </label>
            <label>
              Members
              <input
                name="members"
                data-testid="group-members"
                autocapitalize="none"
                spellcheck={false}
                placeholder="bob, carol"
              />
            </label>
            <p class="hint">User names, separated by commas. You can share the group's id later, too.</p>
          </Match>
          <Match when={kind() === "join"}>
            <label>
              Group id
              <input name="group" data-testid="join-id" autocapitalize="none" spellcheck={false} maxLength={64} required />
            </label>
            <p class="hint">Members find it in the group's details.</p>
          </Match>
        </Switch>
        <p class="error" role="alert" data-testid="new-chat-error">
          {error()}
        </p>
        <button type="submit" class="button primary wide" data-testid="new-chat-submit" disabled={busy()}>
          {SUBMIT[kind()]}
        </button>
      </form>
    </Dialog>
  );
};
