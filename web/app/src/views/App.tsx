import { type Component, createEffect, createSignal, Match, Show, Switch } from "solid-js";
import type { Chat } from "../chat.js";
import { Auth } from "./Auth.jsx";
import { Banner } from "./Banner.jsx";
import { ConversationList } from "./ConversationList.jsx";
import { NewChat } from "./NewChat.jsx";
import { Thread } from "./Thread.jsx";

/** The whole page: login, "open elsewhere", or the two panes. */
export const App: Component<{ chat: Chat }> = (props) => {
  const replaced = (): boolean => {
    const state = props.chat.connection();
    return state.status === "stopped" && state.reason === "replaced";
  };
  createEffect(() => {
    const unread = props.chat.conversations().reduce((sum, one) => sum + (one.unread > 0 ? 1 : 0), 0);
    document.title = unread > 0 ? `(${unread}) Corelane` : "Corelane";
  });
  return (
    <Switch fallback={<Panes chat={props.chat} />}>
      <Match when={props.chat.user() === undefined}>
        <Auth chat={props.chat} />
      </Match>
      <Match when={replaced()}>
        <Elsewhere />
      </Match>
    </Switch>
  );
};

const Panes: Component<{ chat: Chat }> = (props) => {
  const [creating, setCreating] = createSignal(false);
  return (
    <div class="shell" classList={{ "has-thread": props.chat.activeId() !== null }}>
      <div class="panes">
        <Banner chat={props.chat} />
        <ConversationList chat={props.chat} onNew={() => setCreating(true)} />
        <main class="pane thread-pane">
          <Show when={props.chat.activeId()} keyed fallback={<Empty onNew={() => setCreating(true)} />}>
            {(conversationId) => <Thread chat={props.chat} conversationId={conversationId} />}
          </Show>
        </main>
      </div>
      <Show when={creating()}>
        <NewChat chat={props.chat} onClose={() => setCreating(false)} />
      </Show>
    </div>
  );
};

const Empty: Component<{ onNew: () => void }> = (props) => (
  <div class="placeholder">
    <p>Choose a conversation, or start a new one.</p>
    <button type="button" class="button" onClick={() => props.onNew()}>
      New conversation
    </button>
  </div>
);

/** One device has one connection: a second tab takes it over. */
const Elsewhere: Component = () => (
  <main class="center-page">
    <section class="card" data-testid="replaced">
      <h1>Open in another window</h1>
      <p class="muted">Corelane is in use in another tab or window of this browser.</p>
      {/* A fresh start reads what the other window has sent and received meanwhile. */}
      <button type="button" class="button primary wide" data-testid="use-here" onClick={() => location.reload()}>
        Use here
      </button>
    </section>
  </main>
);
