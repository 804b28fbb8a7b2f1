import { describe, expect, it } from "vitest";
import {
  badge,
  colourOf,
  dayTitle,
  daysBetween,
  errorText,
  initials,
  listTime,
  loginErrorText,
  preview,
  userNames,
} from "../src/format.js";
import { conversationOf, hashOf } from "../src/route.js";
import { startsDay, startsGroup } from "../src/thread.js";
import { titleOf } from "../src/title.js";

const at = (text: string): number => new Date(text).getTime();

describe("times", () => {
  const now = at("2026-03-18T15:00:00");

  it("count days by the calendar, not by 24 hours", () => {
    expect(daysBetween(at("2026-03-17T23:59:00"), at("2026-03-18T00:01:00"))).toBe(1);
    expect(daysBetween(at("2026-03-18T00:00:00"), at("2026-03-18T23:59:59"))).toBe(0);
    expect(daysBetween(at("2026-01-01T12:00:00"), at("2026-12-31T12:00:00"))).toBe(364);
  });

  it("name days", () => {
    expect(dayTitle(at("2026-03-18T01:00:00"), now)).toBe("Today");
    expect(dayTitle(at("2026-03-17T23:00:00"), now)).toBe("Yesterday");
    expect(dayTitle(at("2026-03-10T23:00:00"), now)).not.toContain("2026");
    expect(dayTitle(at("2025-03-10T23:00:00"), now)).toContain("2025");
  });

  it("are short in the list", () => {
    expect(listTime(0, now)).toBe("");
    expect(listTime(at("2026-03-17T10:00:00"), now)).toBe("Yesterday");
    expect(listTime(at("2026-03-18T10:05:00"), now)).toMatch(/05/);
    // A clock that is a little ahead is still today.
    expect(listTime(now + 120_000, now)).toMatch(/02/);
  });
});

describe("names", () => {
  it("have initials in any script", () => {
    expect(initials("alice")).toBe("A");
    expect(initials("Ada Lovelace")).toBe("AL");
    expect(initials("ada.lovelace_x")).toBe("AL");
    expect(initials("😀 smile")).toBe("😀S");
    expect(initials("")).toBe("?");
    expect(initials("...")).toBe("?");
  });

  it("keep their colour", () => {
    expect(colourOf("alice", 8)).toBe(colourOf("alice", 8));
    const colours = new Set(Array.from({ length: 60 }, (_, i) => colourOf(`user-${i}`, 8)));
    expect(colours.size).toBe(8);
    for (const colour of colours) expect(colour).toBeLessThan(8);
  });

  it("are read from what a person types", () => {
    expect(userNames("bob, carol;  @dave\nbob")).toEqual(["bob", "carol", "dave"]);
    expect(userNames("  , ;")).toEqual([]);
  });
});

describe("previews", () => {
  it("are one line", () => {
    expect(preview(" a\n\nb\t c ")).toBe("a b c");
  });

  it("are cut between characters", () => {
    expect(preview("😀".repeat(200), 10)).toBe(`${"😀".repeat(10)}…`);
    expect(preview("x".repeat(120))).toHaveLength(120);
  });

  it("counters stay narrow", () => {
    expect(badge(99)).toBe("99");
    expect(badge(100)).toBe("99+");
  });
});

describe("errors", () => {
  const failure = (name: string, detail = "") => ({ name, code: 1, temporary: false, retryAfterMs: 0, detail });

  it("are sentences", () => {
    expect(errorText(failure("USER_NOT_FOUND", "no user"))).toBe("There is no user with this name.");
    expect(errorText(failure("BAD_REQUEST", "password: at least 8 characters"))).toBe("Password: at least 8 characters.");
    expect(errorText(failure("NEW_ONE", "what it says."))).toBe("What it says.");
    expect(errorText(failure("NEW_ONE"))).toBe("Something went wrong.");
    expect(errorText(undefined)).toBe("Something went wrong.");
    expect(errorText("x")).toBe("Something went wrong.");
  });

  it("of a login do not say which half was wrong", () => {
    expect(loginErrorText(failure("UNAUTHENTICATED"))).toBe("Wrong user name or password.");
    expect(loginErrorText(failure("USER_NOT_FOUND"))).toBe("Wrong user name or password.");
    expect(loginErrorText(failure("NETWORK"))).toContain("cannot be reached");
  });
});

describe("addresses", () => {
  it.each(["g_1", "a/b c", "d_1_2#?&", "ünï"])("carry any conversation id: %s", (id) => {
    expect(conversationOf(hashOf(id))).toBe(id);
  });

  it.each(["", "#", "#/", "#/c/", "#/x/1", "#/c/%E0%A4%A"])("that name none lead to the list: %s", (hash) => {
    expect(conversationOf(hash)).toBeNull();
  });

  it("of the list name none", () => {
    expect(conversationOf(hashOf(null))).toBeNull();
  });
});

describe("threads", () => {
  const message = (senderId: string, time: string) => ({ senderId, createdAtMs: at(time) });

  it("group what one person writes in a row", () => {
    const first = message("a", "2026-03-18T10:00:00");
    expect(startsGroup(undefined, first)).toBe(true);
    expect(startsGroup(first, message("a", "2026-03-18T10:04:00"))).toBe(false);
    expect(startsGroup(first, message("a", "2026-03-18T10:06:00"))).toBe(true);
    expect(startsGroup(first, message("b", "2026-03-18T10:00:01"))).toBe(true);
  });

  it("start a new group with a new day", () => {
    const late = message("a", "2026-03-18T23:59:00");
    const early = message("a", "2026-03-19T00:01:00");
    expect(startsDay(late, early)).toBe(true);
    expect(startsGroup(late, early)).toBe(true);
    expect(startsDay(undefined, late)).toBe(true);
    expect(startsDay(late, late)).toBe(false);
  });

  it("have a title even without a name", () => {
    expect(titleOf({ name: " ", conversationId: "group_101" })).toBe("group_101");
    expect(titleOf({ name: "Team", conversationId: "g" })).toBe("Team");
  });
});
