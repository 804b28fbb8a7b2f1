import { type Component, createSignal, Show } from "solid-js";
import type { Chat } from "../chat.js";
import { errorText, loginErrorText } from "../format.js";
import { Logo } from "./icons.jsx";

/** Log in, or make an account. */
export const Auth: Component<{ chat: Chat }> = (props) => {
  const [registering, setRegistering] = createSignal(false);
  const [username, setUsername] = createSignal("");
  const [password, setPassword] = createSignal("");
  const [error, setError] = createSignal("");
  const [busy, setBusy] = createSignal(false);

  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    if (busy()) return;
    setBusy(true);
    setError("");
    try {
      if (registering()) await props.chat.register(username().trim(), password());
      else await props.chat.login(username().trim(), password());
    } catch (thrown) {
      setError(registering() ? errorText(thrown) : loginErrorText(thrown));
    } finally {
      setBusy(false);
    }
  };

  const choose = (value: boolean): void => {
    setRegistering(value);
    setError("");
  };

  return (
    <main class="center-page">
      <section class="card auth" aria-labelledby="auth-title">
        <div class="brand">
          <Logo />
          <span>Corelane</span>
        </div>
        <h1 id="auth-title">{registering() ? "Create your account" : "Welcome back"}</h1>
        <Show when={props.chat.notice() === "session-ended"}>
          <p class="note" role="status" data-testid="session-ended">
            Your session has ended. Please log in again.
          </p>
        </Show>
        <div class="segments" role="group" aria-label="Log in or create an account">
          <button type="button" aria-pressed={!registering()} data-testid="auth-login-tab" onClick={() => choose(false)}>
            Log in
          </button>
          <button type="button" aria-pressed={registering()} data-testid="auth-register-tab" onClick={() => choose(true)}>
            Register
          </button>
        </div>
        <form onSubmit={(event) => void submit(event)} data-testid="auth-form">
          <label>
            User name
            <input
              name="username"
              data-testid="auth-username"
              autocomplete="username"
              autocapitalize="none"
              spellcheck={false}
              maxLength={32}
              required
              autofocus
              value={username()}
              onInput={(event) => setUsername(event.currentTarget.value)}
            />
          </label>
          <label>
            Password
            <input
              name="password"
              type="password"
              data-testid="auth-password"
              autocomplete={registering() ? "new-password" : "current-password"}
              required
              value={password()}
              onInput={(event) => setPassword(event.currentTarget.value)}
            />
          </label>
          <p class="error" role="alert" data-testid="auth-error">
            {error()}
          </p>
          <button type="submit" class="button primary wide" data-testid="auth-submit" disabled={busy()}>
            {registering() ? "Create account" : "Log in"}
          </button>
        </form>
      </section>
    </main>
  );
};
