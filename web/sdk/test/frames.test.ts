import { describe, expect, it } from "vitest";
import {
  parseFrame,
  readConversation,
  readFailure,
  readList,
  readMember,
  readMembership,
  readMessage,
  readPage,
} from "../src/frames.js";
import { dice } from "./world.js";

describe("parseFrame", () => {
  it("reads the envelope", () => {
    expect(parseFrame('{"cmd":2,"code":0,"id":7,"msg_id":"m","conversation_id":"c","seq":1}')).toMatchObject({
      cmd: 2,
      code: 0,
      id: 7,
      msgId: "m",
      conversationId: "c",
    });
  });

  it("takes a missing code for success, as pushes have none", () => {
    expect(parseFrame('{"cmd":4}')).toMatchObject({ cmd: 4, code: 0 });
  });

  it("takes the null with which the server refuses what it could not read", () => {
    expect(parseFrame('{"cmd":null,"code":400,"id":3,"error":{}}')).toMatchObject({ cmd: -1, code: 400, id: 3 });
  });

  it.each(["", "{", "null", "1", '"x"', "[]", "{}", '{"cmd":"2"}', '{"cmd":-1}', '{"cmd":1.5}', '{"cmd":2,"code":"0"}', '{"cmd":2,"code":null}', '{"cmd":1e99}'])(
    "refuses %s",
    (text) => {
      expect(parseFrame(text)).toBeNull();
    },
  );
});

describe("messages", () => {
  const whole = {
    msg_id: "m",
    message_id: "9007199254740993",
    seq: 5,
    sender_id: "12",
    sender: "alice",
    content: "<b>&\u0000😀",
    msg_type: 2,
    created_at_ms: 99,
  };

  it("are read byte-exact", () => {
    expect(readMessage(whole, "c")).toEqual({
      conversationId: "c",
      msgId: "m",
      messageId: "9007199254740993",
      seq: 5,
      senderId: "12",
      sender: "alice",
      content: "<b>&\u0000😀",
      msgType: 2,
      createdAtMs: 99,
    });
  });

  it("tell content that is not text apart", () => {
    expect(readMessage({ seq: 1, content_base64: "/w==" }, "c")).toMatchObject({ content: "", contentBase64: "/w==" });
    expect(readMessage(whole, "c")).not.toHaveProperty("contentBase64");
  });

  it("have defaults for all but the seq", () => {
    expect(readMessage({ seq: 1 }, "c")).toMatchObject({ seq: 1, content: "", msgType: 1, sender: "" });
  });

  it.each([null, undefined, 3, "x", [], {}, { seq: 0 }, { seq: -1 }, { seq: "5" }, { seq: 1.5 }, { seq: Number.NaN }])(
    "without a seq are refused (%j)",
    (raw) => {
      expect(readMessage(raw, "c")).toBeNull();
    },
  );
});

describe("failures", () => {
  it("are read whole", () => {
    const raw = { name: "RATE_LIMITED", temporary: true, retry_after_ms: 250, detail: "slow" };
    expect(readFailure(429, raw)).toEqual({ name: "RATE_LIMITED", code: 429, temporary: true, retryAfterMs: 250, detail: "slow" });
  });

  it("without a verdict are temporary only for numbers of the server's own trouble", () => {
    expect(readFailure(500, null)).toMatchObject({ name: "UNKNOWN", temporary: true });
    expect(readFailure(406, { name: 3 })).toMatchObject({ name: "UNKNOWN", temporary: false });
  });
});

describe("conversations, members and events", () => {
  it("read a conversation with its last message", () => {
    const info = readConversation({
      conversation_id: "c",
      type: "direct",
      name: "bob",
      max_seq: 3,
      read_seq: 1,
      unread: 2,
      member_count: 2,
      role: "member",
      last_active_at_ms: 5,
      last_message: { seq: 3, content: "hi" },
    });
    expect(info).toMatchObject({ conversationId: "c", type: "direct", unread: 2, lastMessage: { seq: 3, conversationId: "c" } });
  });

  it("take null for no last message", () => {
    expect(readConversation({ conversation_id: "c", last_message: null })?.lastMessage).toBeNull();
  });

  it.each([null, [], "c", {}, { conversation_id: 5 }, { conversation_id: "" }])("refuse %j", (raw) => {
    expect(readConversation(raw)).toBeNull();
  });

  it("leave out list items they cannot read", () => {
    expect(readList([{ user_id: "1", username: "a" }, null, { username: "b" }], readMember)).toEqual([
      { userId: "1", username: "a", nickname: "a", role: "member" },
    ]);
    expect(readMember({ user_id: "2", username: "bob", nickname: "" })?.nickname).toBe("bob");
    expect(readList("x", readMember)).toEqual([]);
  });

  it("read an event only when it names itself and its conversation", () => {
    const good = parseFrame('{"cmd":12,"conversation_id":"c","payload":{"event":"joined","user_id":"1","username":"a"}}')!;
    expect(readMembership(good)).toEqual({ conversationId: "c", event: "joined", userId: "1", username: "a" });
    expect(readMembership(parseFrame('{"cmd":12,"payload":{"event":"joined"}}')!)).toBeNull();
    expect(readMembership(parseFrame('{"cmd":12,"conversation_id":"c","payload":[]}')!)).toBeNull();
    expect(readMembership(parseFrame('{"cmd":12,"conversation_id":"c","payload":{"event":1}}')!)).toBeNull();
  });
});

describe("pages", () => {
  it("are sorted, and cut to the asked range", () => {
    const page = readPage({ payload: [{ seq: 7 }, { seq: 5 }, { seq: 3 }], next_cursor_seq: 7, has_more: true }, "c", (s) => s > 4);
    expect(page?.items.map((m) => m.seq)).toEqual([5, 7]);
    expect(page).toMatchObject({ nextCursorSeq: 7, hasMore: true, malformed: 0 });
  });

  it("count items they cannot read", () => {
    expect(readPage({ payload: [null, { seq: 1 }, {}] }, "c", () => true)).toMatchObject({ malformed: 2, nextCursorSeq: 1, hasMore: false });
  });

  it("without a list are none", () => {
    expect(readPage({ payload: {} }, "c", () => true)).toBeNull();
    expect(readPage({}, "c", () => true)).toBeNull();
  });
});

it("no reader throws on anything (seeded)", () => {
  const { next } = dice(42);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)]!;
  const keys = ["cmd", "code", "id", "seq", "payload", "error", "conversation_id", "user_id", "event", "last_message", "has_more"];
  const junk = (depth: number): unknown => {
    const kind = next();
    if (depth > 0 && kind < 0.3) return Object.fromEntries(Array.from({ length: 4 }, () => [pick(keys), junk(depth - 1)]));
    if (depth > 0 && kind < 0.45) return Array.from({ length: 3 }, () => junk(depth - 1));
    return pick([null, true, 0, 1, -1, 2 ** 60, 1.5, "", "x", "__proto__"]);
  };
  for (let i = 0; i < 3000; i++) {
    const value = junk(4);
    const frame = parseFrame(JSON.stringify(value));
    if (frame !== null) readMembership(frame);
    readMessage(value, "c");
    readConversation(value);
    readMember(value);
    readFailure(1, value);
    if (frame !== null) readPage(frame.body, "c", () => true);
  }
});
