/** One connection at a time: connect, log in, heartbeat, notice the end, decide when to come back. */

import { backoffMs } from "./backoff.js";
import type { Cancel, Environment, Socket } from "./env.js";
import { asCorelaneError, type CloseAction, closeAction, CorelaneError, CLOSE_REPLACED } from "./errors.js";
import { Cmd, type Frame, isObject, type Json, parseFrame, readFailure, textOf, wholeNumber } from "./frames.js";
import type { Tuning } from "./options.js";
import type { ConnectionState, StopReason, User } from "./types.js";

/** What the link needs to log in. */
export interface LinkOptions {
  /** `ws:` or `wss:` address of the server's `/ws`. */
  url: string;
  deviceId: string;
  deviceClass: string;
  tuning: Tuning;
}

/** What the link tells its owner, and asks of it. */
export interface LinkHooks {
  /** An access token; a new one when `renew` is set, because the last one was refused. */
  token(renew: boolean): Promise<string>;
  /** What the client has: the server sends what is missing right behind the login's answer. */
  resumePoints(): ResumePoint[];
  stateChanged(state: ConnectionState): void;
  /** Logged in: the moment to sync and to send what waits. */
  up(user: User): void;
  /** The logged-in connection is gone; nothing that was sent on it will be answered. */
  down(): void;
  /** A frame that is not the link's own business. */
  frame(frame: Frame): void;
  malformed(text: string): void;
}

/** The last message up to which a conversation is complete here. */
export interface ResumePoint {
  readonly conversation_id: string;
  readonly seq: number;
}

/** Tokens refused one after the other before the user has to log in by hand. */
const REFUSALS_MAX = 3;

const HEARTBEAT_MIN_MS = 1_000;
const HEARTBEAT_MAX_MS = 600_000;

/** Close code of a connection that the client itself ends in good order. */
const CLOSE_NORMAL = 1000;

interface Goaway {
  code: number;
  reconnectAtMs: number;
}

/**
 * ```text
 * idle --start--> connecting --login ok--> online
 *                  ^   |                     |
 *                  |   +-------- down -------+
 *                  |                         v
 *                  +------ timer ------- waiting      (any) --range 49xx, no token--> stopped
 * ```
 */
export class Link {
  private current: ConnectionState = { status: "idle" };
  private socket: Socket | undefined;
  /** Rises with every attempt; callbacks of older ones are ignored. */
  private generation = 0;
  private attempt = 0;
  private refusals = 0;
  private renew = false;
  private goaway: Goaway | undefined;
  private connectTimer: Cancel = () => {};
  private waitTimer: Cancel = () => {};
  private stableTimer: Cancel = () => {};
  private heartbeatTimer: Cancel = () => {};
  private silenceTimer: Cancel = () => {};
  private goawayTimer: Cancel = () => {};

  constructor(
    private readonly env: Environment,
    private readonly options: LinkOptions,
    private readonly hooks: LinkHooks,
  ) {}

  get state(): ConnectionState {
    return this.current;
  }

  /** Starts, or restarts after `stopped`. */
  start(): void {
    if (this.current.status !== "idle" && this.current.status !== "stopped") return;
    this.attempt = 0;
    this.refusals = 0;
    this.connect();
  }

  /** Ends the connection and stays away. */
  stop(): void {
    this.drop(CLOSE_NORMAL);
    this.renew = false;
    this.setState({ status: "idle" });
  }

  /** Tries now instead of when the delay is over. */
  retryNow(): void {
    if (this.current.status === "waiting") this.connect();
  }

  /** Finds out now, not at the next heartbeat, whether the connection still lives. */
  probe(): void {
    if (this.current.status === "waiting") this.connect();
    else if (this.current.status === "online") this.ask(this.options.tuning.heartbeatTimeoutMs);
  }

  /** Hint of the device: without a network the socket is dead even if nobody has noticed yet. */
  networkChanged(online: boolean): void {
    if (online) {
      if (this.current.status !== "waiting") return;
      this.attempt = 0;
      this.connect();
    } else if (this.current.status === "online" || this.current.status === "connecting") {
      this.lost("backoff", 0);
    }
  }

  /** Ends the connection because the server no longer accepts its token, and logs in with a new one. */
  reauthenticate(): void {
    if (this.current.status === "online") this.lost("reauthenticate", 0);
  }

  /** Sends one frame. False when there is no logged-in connection to carry it. */
  send(frame: Json): boolean {
    return this.current.status === "online" && this.transmit(frame);
  }

  private connect(): void {
    this.drop(CLOSE_NORMAL);
    const generation = this.generation;
    this.setState({ status: "connecting" });
    this.connectTimer = this.env.clock.after(this.options.tuning.connectTimeoutMs, () => this.lost("backoff", 0));
    const renew = this.renew;
    this.hooks.token(renew).then(
      (token) => {
        if (generation !== this.generation) return;
        this.renew = false;
        this.open(generation, token);
      },
      (thrown: unknown) => {
        if (generation === this.generation) this.noToken(asCorelaneError(thrown));
      },
    );
  }

  private noToken(error: CorelaneError): void {
    if (error.temporary) this.lost("backoff", error.retryAfterMs);
    else this.giveUp("unauthenticated", error.detail);
  }

  private open(generation: number, token: string): void {
    const mine = (run: () => void): void => {
      if (generation === this.generation) run();
    };
    try {
      this.socket = this.env.transport.open(this.options.url, {
        open: () => mine(() => this.login(token)),
        text: (data) => mine(() => this.received(data)),
        closed: (code, reason) => mine(() => this.closed(code, reason)),
      });
    } catch {
      this.lost("backoff", 0);
    }
  }

  private login(token: string): void {
    const { deviceId, deviceClass } = this.options;
    const resume = this.hooks.resumePoints();
    const points = resume.length === 0 ? {} : { resume };
    this.transmit({ cmd: Cmd.login, payload: { token, device_id: deviceId, device_class: deviceClass, ...points } });
  }

  private received(text: string): void {
    // Any inbound traffic proves that the connection lives.
    this.silenceTimer();
    const frame = parseFrame(text);
    if (frame === null) return this.hooks.malformed(text);
    if (frame.cmd === Cmd.login) return this.loginAnswered(frame);
    if (frame.cmd === Cmd.goaway) return this.goawayReceived(frame);
    if (frame.cmd === Cmd.heartbeat) return;
    if (this.current.status === "online") this.hooks.frame(frame);
  }

  private loginAnswered(frame: Frame): void {
    if (this.current.status !== "connecting") return;
    if (frame.code !== 0) return this.loginRefused(readFailure(frame.code, frame.body["error"]));
    const payload = isObject(frame.body["payload"]) ? frame.body["payload"] : {};
    const user = { userId: textOf(payload["user_id"]) ?? "", username: textOf(payload["username"]) ?? "" };
    this.connectTimer();
    this.refusals = 0;
    this.stableTimer = this.env.clock.after(this.options.tuning.stableAfterMs, () => {
      this.attempt = 0;
    });
    this.beat(this.heartbeatInterval(wholeNumber(payload["heartbeat_ms"])));
    this.setState({ status: "online", user });
    this.hooks.up(user);
  }

  private loginRefused(failure: ReturnType<typeof readFailure>): void {
    if (failure.name === "UNAUTHENTICATED" || failure.code === 401) return this.lost("reauthenticate", 0);
    if (failure.temporary) return this.lost("backoff", failure.retryAfterMs);
    this.giveUp("refused", failure.detail);
  }

  private heartbeatInterval(asked: number | undefined): number {
    if (asked === undefined || asked === 0) return this.options.tuning.heartbeatMs;
    return Math.min(HEARTBEAT_MAX_MS, Math.max(HEARTBEAT_MIN_MS, asked));
  }

  private beat(intervalMs: number): void {
    this.heartbeatTimer = this.env.clock.after(intervalMs, () => {
      if (this.ask(intervalMs)) this.beat(intervalMs);
    });
  }

  /** Sends a heartbeat and gives the server limited time to say anything. */
  private ask(limitMs: number): boolean {
    this.silenceTimer();
    const timeoutMs = Math.min(limitMs, this.options.tuning.heartbeatTimeoutMs);
    this.silenceTimer = this.env.clock.after(timeoutMs, () => this.lost("backoff", 0));
    return this.transmit({ cmd: Cmd.heartbeat });
  }

  /** The server drains: work goes on here until this client's slot comes. */
  private goawayReceived(frame: Frame): void {
    const delayMs = wholeNumber(frame.body["reconnect_after_ms"]) ?? 0;
    const code = frame.code === 0 ? 4000 : frame.code;
    this.goaway = { code, reconnectAtMs: this.env.clock.now() + delayMs };
    this.goawayTimer();
    this.goawayTimer = this.env.clock.after(delayMs, () => this.closed(code, textOf(frame.body["reason"]) ?? ""));
  }

  private closed(code: number, reason: string): void {
    // Servers may close with a plain 1000 or 1001 right after GOAWAY; its code says more.
    const effective = closeAction(code) === "backoff" && this.goaway !== undefined ? this.goaway.code : code;
    const action = closeAction(effective);
    if (action !== "stop") return this.lost(action, 0);
    this.giveUp(effective === CLOSE_REPLACED ? "replaced" : "refused", reason);
  }

  private lost(action: CloseAction, floorMs: number): void {
    const hint = this.goaway;
    this.drop(CLOSE_NORMAL);
    if (action === "reauthenticate") {
      this.renew = true;
      this.refusals += 1;
      if (this.refusals > REFUSALS_MAX) return this.giveUp("unauthenticated", "the server refused every token");
    }
    const delayMs = Math.max(floorMs, this.delayMs(action, hint));
    this.attempt += 1;
    if (delayMs <= 0) return this.connect();
    this.setState({ status: "waiting", retryAtMs: this.env.clock.now() + delayMs });
    this.waitTimer = this.env.clock.after(delayMs, () => this.connect());
  }

  private delayMs(action: CloseAction, hint: Goaway | undefined): number {
    const { backoff } = this.options.tuning;
    const jitterMs = backoffMs(this.attempt, backoff, this.env.random);
    const hintMs = hint === undefined ? undefined : Math.max(0, hint.reconnectAtMs - this.env.clock.now());
    // "At once" holds for the first time only: a server that keeps saying it must not be hammered.
    const promptMs = this.attempt === 0 ? 0 : jitterMs;
    switch (action) {
      case "now":
      case "reauthenticate":
        return Math.max(hintMs ?? 0, promptMs);
      case "delayed":
        return hintMs === undefined ? backoff.baseMs + jitterMs : Math.max(hintMs, promptMs);
      default:
        return Math.max(hintMs ?? 0, jitterMs);
    }
  }

  private giveUp(reason: StopReason, detail: string): void {
    this.drop(CLOSE_NORMAL);
    this.setState({ status: "stopped", reason, detail });
  }

  /** Lets go of the socket and of everything timed. Does not wait for the closing handshake. */
  private drop(code: number): void {
    const wasOnline = this.current.status === "online";
    this.generation += 1;
    const { socket } = this;
    this.socket = undefined;
    this.goaway = undefined;
    for (const cancel of this.timers()) cancel();
    try {
      socket?.close(code, "");
    } catch {
      // A socket that cannot be closed is closed already.
    }
    if (!wasOnline) return;
    this.current = { status: "connecting" };
    this.hooks.down();
  }

  private timers(): Cancel[] {
    return [
      this.connectTimer,
      this.waitTimer,
      this.stableTimer,
      this.heartbeatTimer,
      this.silenceTimer,
      this.goawayTimer,
    ];
  }

  private transmit(frame: Json): boolean {
    if (this.socket === undefined) return false;
    try {
      this.socket.send(JSON.stringify(frame));
      return true;
    } catch {
      // The socket died and its close event has yet to come.
      this.lost("backoff", 0);
      return false;
    }
  }

  private setState(state: ConnectionState): void {
    this.current = state;
    this.hooks.stateChanged(state);
  }
}
