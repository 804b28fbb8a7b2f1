/** Where the frames of a logged-in connection go. */

import type { Calls } from "./calls.js";
import type { Emitter } from "./emitter.js";
import { Cmd, type Frame, readList, readMembership, readMessage, wholeNumber } from "./frames.js";
import type { Presence } from "./presence.js";
import type { Rooms } from "./rooms.js";
import type { Sender } from "./sender.js";
import type { Syncer } from "./syncer.js";
import type { ClientEvents } from "./types.js";

/** Hands every frame to the part it concerns. */
export class Inbound {
  constructor(
    private readonly rooms: Rooms,
    private readonly syncer: Syncer,
    private readonly sender: Sender,
    private readonly calls: Calls,
    private readonly presence: Presence,
    private readonly emitter: Emitter<ClientEvents>,
    private readonly ownId: () => string | undefined,
  ) {}

  /** Takes one frame. */
  received(frame: Frame): void {
    if (frame.conversationId !== undefined) this.syncer.touched(frame.conversationId);
    switch (frame.cmd) {
      case Cmd.push:
        return this.pushed(frame);
      case Cmd.resumed:
        return this.resumed(frame);
      case Cmd.lagged:
        return this.lagged(frame);
      case Cmd.event:
        return this.membershipChanged(frame);
      case Cmd.presenceChange:
        if (!this.presence.changed(frame)) this.warn("MALFORMED_FRAME", "presence without a user");
        return;
      case Cmd.send:
        return this.sender.answered(frame);
      default:
        // A refusal may come back under another command when the server could not read ours.
        if (!this.calls.answered(frame) && frame.code !== 0) this.sender.answered(frame);
    }
  }

  private pushed(frame: Frame): void {
    const message = frame.conversationId === undefined ? null : readMessage(frame.body["payload"], frame.conversationId);
    if (message === null) return this.warn("MALFORMED_FRAME", "push without seq or conversation");
    this.rooms.push(message);
  }

  /** All that happened in a conversation meanwhile; with nothing in it, the sync finds what is missing. */
  private resumed(frame: Frame): void {
    const { conversationId } = frame;
    if (conversationId === undefined) return this.warn("MALFORMED_FRAME", "RESUMED without conversation");
    if (this.rooms.get(conversationId) === undefined) return;
    const missed = readList(frame.body["payload"], (raw) => readMessage(raw, conversationId));
    for (const message of missed) this.rooms.push(message);
  }

  /** The server dropped pushes to this connection from `from_seq` on. */
  private lagged(frame: Frame): void {
    const { conversationId } = frame;
    if (conversationId === undefined) return this.warn("MALFORMED_FRAME", "LAGGED without conversation");
    this.rooms.lagged(conversationId, wholeNumber(frame.body["from_seq"]) ?? 0);
  }

  private membershipChanged(frame: Frame): void {
    const event = readMembership(frame);
    if (event === null) return this.warn("MALFORMED_FRAME", "event without name or conversation");
    const own = event.userId !== "" && event.userId === this.ownId();
    const room = this.rooms.get(event.conversationId);
    if (own && event.event === "left") this.drop(event.conversationId);
    else if (room?.info === undefined) this.syncer.lookUp(event.conversationId);
    else if (!own && event.event === "joined") room.members(+1);
    else if (!own && event.event === "left") room.members(-1);
    if (room?.info !== undefined && this.rooms.get(event.conversationId) === room) this.rooms.changed(room);
    this.emitter.emit("membership", event);
  }

  /** The user left the conversation. */
  drop(conversationId: string): void {
    this.rooms.remove(conversationId);
    this.sender.removed(conversationId);
  }

  private warn(name: string, detail: string): void {
    this.emitter.emit("warning", { name, detail });
  }
}
