/** The client's state as Solid signals. Views read from here and call the client through here. */

import type { ConnectionState, Conversation, CorelaneClient, Message, OutgoingMessage, User } from "@corelane/sdk";
import { batch, createSignal, type Signal } from "solid-js";
import { createStore, reconcile } from "solid-js/store";
import { conversationOf, hashOf } from "./route.js";

/** Why the login page shows. */
export type Notice = "session-ended" | null;

/** Everything the views need. */
export class Chat {
  readonly connection: () => ConnectionState;
  readonly user: () => User | undefined;
  readonly synced: () => boolean;
  readonly activeId: () => string | null;
  readonly notice: () => Notice;
  private readonly list: { conversations: Conversation[] };
  private readonly setList: (conversations: Conversation[]) => void;
  private readonly versions = new Map<string, Signal<number>>();
  private readonly drafts = new Map<string, string>();
  private readonly dirty = new Set<string>();
  private flushing = false;

  constructor(readonly client: CorelaneClient) {
    const [connection, setConnection] = createSignal<ConnectionState>(client.state);
    const [user, setUser] = createSignal<User | undefined>(client.user);
    const [synced, setSynced] = createSignal(client.synced);
    const [activeId, setActiveId] = createSignal(conversationOf(location.hash));
    const [notice, setNotice] = createSignal<Notice>(null);
    const [list, setList] = createStore<{ conversations: Conversation[] }>({ conversations: client.conversations().map(copy) });
    this.connection = connection;
    this.user = user;
    this.synced = synced;
    this.activeId = activeId;
    this.notice = notice;
    this.list = list;
    this.setList = (conversations) =>
      setList("conversations", reconcile(conversations.map(copy), { key: "conversationId" }));
    client.on("connection", (state) => {
      setConnection(state);
      if (state.status !== "stopped" || state.reason !== "unauthenticated" || client.user === undefined) return;
      client.endSession();
      setNotice("session-ended");
    });
    client.on("user", (next) => {
      setUser(next ?? undefined);
      setSynced(client.synced);
      if (next !== null) setNotice(null);
    });
    client.on("synced", () => setSynced(true));
    client.on("message", (message) => this.touch(message.conversationId));
    client.on("outgoing", (item) => this.touch(item.conversationId));
    client.on("history", ({ conversationId }) => this.touch(conversationId));
    client.on("conversation", ({ conversationId, removed }) => {
      this.touch(conversationId);
      if (removed && this.activeId() === conversationId && client.user !== undefined) this.open(null);
    });
    addEventListener("hashchange", () => setActiveId(conversationOf(location.hash)));
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") client.wake();
    });
  }

  /** Connects when somebody is logged in on this device. */
  start(): void {
    if (this.client.user !== undefined) this.client.connect();
  }

  async login(username: string, password: string): Promise<void> {
    await this.client.login({ username, password });
    this.client.connect();
  }

  async register(username: string, password: string): Promise<void> {
    await this.client.register({ username, password });
    this.client.connect();
  }

  async logout(): Promise<void> {
    this.open(null);
    this.drafts.clear();
    await this.client.logout();
  }

  /** Opens a conversation, or with null the list. */
  open(conversationId: string | null): void {
    if (this.activeId() !== conversationId) location.hash = hashOf(conversationId);
  }

  conversations(): Conversation[] {
    return this.list.conversations;
  }

  conversation(conversationId: string): Conversation | undefined {
    return this.list.conversations.find((one) => one.conversationId === conversationId);
  }

  messages(conversationId: string): readonly Message[] {
    this.version(conversationId)[0]();
    return this.client.messages(conversationId);
  }

  outgoing(conversationId: string): readonly OutgoingMessage[] {
    this.version(conversationId)[0]();
    return this.client.outgoing(conversationId);
  }

  hasOlder(conversationId: string): boolean | undefined {
    this.version(conversationId)[0]();
    return this.client.hasOlder(conversationId);
  }

  discard(item: OutgoingMessage): void {
    this.client.discard(item.msgId);
    this.touch(item.conversationId);
  }

  /** What was typed and not sent yet. */
  draft(conversationId: string): string {
    return this.drafts.get(conversationId) ?? "";
  }

  keepDraft(conversationId: string, text: string): void {
    this.drafts.set(conversationId, text);
  }

  private version(conversationId: string): Signal<number> {
    let signal = this.versions.get(conversationId);
    if (signal === undefined) {
      signal = createSignal(0);
      this.versions.set(conversationId, signal);
    }
    return signal;
  }

  /** A sync brings hundreds of changes at once: the views are told once. */
  private touch(conversationId: string): void {
    this.dirty.add(conversationId);
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(() => {
      this.flushing = false;
      const dirty = [...this.dirty];
      this.dirty.clear();
      batch(() => {
        this.setList(this.client.conversations());
        for (const one of dirty) this.version(one)[1]((n) => n + 1);
      });
    });
  }
}

/** The store writes into the objects it holds; the client's own must stay as they are. */
function copy(conversation: Conversation): Conversation {
  const { lastMessage } = conversation;
  return { ...conversation, lastMessage: lastMessage === null ? null : { ...lastMessage } };
}
