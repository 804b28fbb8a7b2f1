import { type Component, createEffect, createSignal, Match, onCleanup, Show, Switch } from "solid-js";
import type { Chat } from "../chat.js";

/** A first connection is usually quicker than this; a banner that flashes by only worries. */
const QUIET_MS = 700;

/** Tells why nothing goes out or comes in at the moment. */
export const Banner: Component<{ chat: Chat }> = (props) => {
  const [shown, setShown] = createSignal(false);
  const [nowMs, setNowMs] = createSignal(Date.now());
  const status = (): string => props.chat.connection().status;

  createEffect(() => {
    if (status() === "online") return void setShown(false);
    if (status() !== "connecting") return void setShown(true);
    const timer = setTimeout(() => setShown(true), QUIET_MS);
    onCleanup(() => clearTimeout(timer));
  });
  createEffect(() => {
    if (status() !== "waiting") return;
    setNowMs(Date.now());
    const timer = setInterval(() => setNowMs(Date.now()), 1000);
    onCleanup(() => clearInterval(timer));
  });

  const seconds = (): number => {
    const state = props.chat.connection();
    return state.status === "waiting" ? Math.max(0, Math.ceil((state.retryAtMs - nowMs()) / 1000)) : 0;
  };
  const stoppedDetail = (): string => {
    const state = props.chat.connection();
    return state.status === "stopped" && state.detail !== "" ? ` (${state.detail})` : "";
  };

  return (
    <div aria-live="polite" class="banner-slot">
      <Show when={shown()}>
        <div class="banner" data-testid="connection-banner" data-status={status()}>
          <Switch>
            <Match when={status() === "connecting"}>
              <span class="spinner" aria-hidden="true" />
              <span>Connecting…</span>
            </Match>
            <Match when={status() === "waiting"}>
              <span>
                {navigator.onLine ? "Connection lost." : "You are offline."} Messages are sent when the connection is back.
                <span class="muted"> {seconds() > 0 ? `Next try in ${seconds()} s.` : ""}</span>
              </span>
              <button type="button" class="link" data-testid="retry-now" onClick={() => props.chat.client.retryNow()}>
                Try now
              </button>
            </Match>
            <Match when={status() === "stopped"}>
              <span>The server ended the connection{stoppedDetail()}.</span>
              <button type="button" class="link" data-testid="connect-again" onClick={() => props.chat.client.connect()}>
                Connect again
              </button>
            </Match>
          </Switch>
        </div>
      </Show>
    </div>
  );
};
