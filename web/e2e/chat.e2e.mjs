// End-to-end test in Chromium, against BASE_URL or, without it, the development server.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DESKTOP, PHONE, SLOW_MS, Stage, until } from "./stage.mjs";

/** @type {Stage} */
let stage;
let alice;
let bob;
let direct;
let group;

before(async () => {
  stage = await Stage.open();
});

after(async () => {
  await stage?.close();
});

/** Runs in the page: conversations the device remembers. */
const countArchived = () =>
  new Promise((resolve, reject) => {
    const opening = indexedDB.open("corelane");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const counting = opening.result.transaction("rooms").objectStore("rooms").count();
      counting.onsuccess = () => {
        opening.result.close();
        resolve(counting.result);
      };
    };
  });

/** Runs in the page: the newest message the device remembers of a conversation. */
const lastArchived = (id) =>
  new Promise((resolve, reject) => {
    const opening = indexedDB.open("corelane");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const reading = opening.result.transaction("rooms").objectStore("rooms").getAll();
      reading.onsuccess = () => {
        opening.result.close();
        const found = reading.result.find(({ room }) => room.info.conversationId === id);
        resolve(found?.room.messages.at(-1)?.content);
      };
    };
  });

const atEnd = (log) => log.evaluate((el) => el.scrollHeight - el.scrollTop - el.clientHeight < 5);

const noHoles = (transcript) => {
  const seqs = transcript.map(([seq]) => seq);
  assert.deepEqual(seqs, seqs.map((_, i) => seqs[0] + i), "seqs rise by one");
};

test("register, with readable errors on the way", async () => {
  alice = await stage.person("alice");
  await alice.id("auth-form").waitFor();
  await alice.picture("01-login-desktop-light");
  await alice.register();
  await alice.id("list-empty").waitFor();
  bob = await stage.join("bob");

  const double = await stage.person("alice");
  double.expectTrouble = true;
  await double.id("auth-register-tab").click();
  await double.id("auth-username").fill(alice.name);
  await double.id("auth-password").fill("another password");
  await double.id("auth-submit").click();
  await until("name is taken", async () => (await double.id("auth-error").textContent()).includes("taken"));
  await double.login("wrong password");
  await until("login refused", async () => (await double.id("auth-error").textContent()).includes("Wrong user name"));
  await double.context.close();
});

test("a direct chat goes both ways", async () => {
  direct = await alice.direct(bob);
  assert.equal(await alice.id("thread-title").textContent(), bob.name);
  await alice.send("Hello Bob");
  await alice.sees("Hello Bob", "sent");
  await bob.row(direct).waitFor();
  await until("unread is counted", async () => (await bob.row(direct).getByTestId("conversation-unread").count()) === 1);
  await bob.picture("02-unread-desktop-light");
  await bob.open(direct);
  await bob.sees("Hello Bob");
  await bob.row(direct).getByTestId("conversation-unread").waitFor({ state: "detached" });
  await bob.send("Hi Alice 👋");
  await bob.sees("Hi Alice 👋", "sent");
  await alice.sees("Hi Alice 👋");
  assert.deepEqual(await alice.transcript(), await bob.transcript());
  noHoles(await alice.transcript());
});

test("content is text, whatever it looks like", async () => {
  const evil = `<img src=x onerror="alert(1)"><script>alert(2)</script> & <b>bold</b> ' OR 1=1 --`;
  await alice.send(evil);
  await alice.sees(evil, "sent");
  await bob.sees(evil);
  assert.equal(await bob.page.locator("[data-testid=messages] :is(img, script, b)").count(), 0);
  await alice.id("composer").fill("two\nlines");
  await alice.id("composer").press("Enter");
  await until("line breaks survive", async () => (await bob.transcript()).at(-1)?.[1] === "two\nlines");
});

test("a group: create, join by id, members, leave", async () => {
  group = await alice.group("Weekend trip", [bob]);
  await alice.send("Who is in?");
  await alice.sees("Who is in?", "sent");
  await bob.row(group).waitFor();
  await bob.open(group);
  await bob.sees("Who is in?");
  await alice.id("details").click();
  assert.equal(await alice.id("group-id").textContent(), group);
  await until("both members are listed", async () => (await alice.id("member").count()) === 2);
  await alice.picture("03-details-desktop-light");
  await alice.page.keyboard.press("Escape");
  await alice.id("details-dialog").waitFor({ state: "detached" });

  const carol = await stage.join("carol");
  await carol.id("new-chat").click();
  await carol.id("new-join").click();
  await carol.id("join-id").fill(`${group}-not`);
  await carol.id("new-chat-submit").click();
  await until("join refused", async () => (await carol.id("new-chat-error").textContent()).includes("no such conversation"));
  await carol.id("join-id").fill(group);
  await carol.id("new-chat-submit").click();
  assert.equal(await carol.openId(), group);
  await carol.sees("Who is in?");
  await carol.send("Carol is in!");
  await carol.sees("Carol is in!", "sent");
  await alice.sees("Carol is in!");
  await bob.sees("Carol is in!");
  await until("three members", async () => (await alice.id("thread-subtitle").textContent()) === "3 members");
  await bob.send("Me too");
  await bob.sees("Me too", "sent");
  await carol.sees("Me too");
  await alice.sees("Me too");
  assert.deepEqual(await alice.transcript(), await bob.transcript());
  await alice.picture("04-group-desktop-light");

  await carol.id("details").click();
  await carol.id("leave-group").click();
  await carol.id("leave-group").click();
  await carol.row(group).waitFor({ state: "detached" });
  await until("two members", async () => (await alice.id("thread-subtitle").textContent()) === "2 members");
  await alice.send("Without Carol");
  await bob.sees("Without Carol");
  assert.equal(await carol.row(group).count(), 0);
  await carol.context.close();
});

test("unknown users give a readable error", async () => {
  await alice.id("new-chat").click();
  await alice.id("direct-username").fill(`nobody_${stage.run}`);
  await alice.id("new-chat-submit").click();
  await until("refused", async () => (await alice.id("new-chat-error").textContent()) === "There is no user with this name.");
  await alice.page.keyboard.press("Escape");
  await alice.id("new-chat-dialog").waitFor({ state: "detached" });
});

test("a message that is too long fails with a reason, and can be edited", async () => {
  await alice.send("x".repeat(5000));
  const failed = alice.page.locator('[data-testid="message"][data-state="failed"]');
  await failed.waitFor({ timeout: SLOW_MS });
  assert.match(await failed.textContent(), /too long/);
  await failed.scrollIntoViewIfNeeded();
  await alice.picture("05-failed-desktop-light");
  await failed.getByTestId("retry").click();
  await failed.waitFor({ timeout: SLOW_MS });
  await failed.getByTestId("edit").click();
  await failed.waitFor({ state: "detached" });
  assert.equal((await alice.id("composer").inputValue()).length, 5000);
  await alice.id("composer").fill("short enough");
  await alice.id("composer").press("Enter");
  await alice.sees("short enough", "sent");
});

test("offline: messages wait, and nothing is missing afterwards", async () => {
  await alice.open(direct);
  await bob.open(direct);
  alice.expectTrouble = true;
  const places = await alice.places("new-chat", "details", "composer");
  await alice.context.setOffline(true);
  await alice.id("connection-banner").waitFor();
  assert.deepEqual(await alice.places("new-chat", "details", "composer"), places, "nothing moves under the pointer");
  await alice.send("written offline 1");
  await alice.send("written offline 2");
  await alice.sees("written offline 1", "sending");
  await alice.sees("written offline 2", "sending");
  for (const text of ["meanwhile 1", "meanwhile 2", "meanwhile 3"]) {
    await bob.send(text);
    await bob.sees(text, "sent");
  }
  assert.equal(await alice.message("meanwhile 1").count(), 0);
  await alice.picture("06-offline-desktop-light");
  await alice.context.setOffline(false);
  await alice.online();
  alice.expectTrouble = false;
  await alice.sees("written offline 1", "sent");
  await alice.sees("written offline 2", "sent");
  await alice.sees("meanwhile 3");
  await bob.sees("written offline 2");
  await until("both see the same", async () => {
    const [one, two] = [await alice.transcript(), await bob.transcript()];
    return JSON.stringify(one) === JSON.stringify(two);
  });
  const transcript = await alice.transcript();
  noHoles(transcript);
  const texts = transcript.map(([, text]) => text);
  for (const text of ["written offline 1", "written offline 2", "meanwhile 1", "meanwhile 2", "meanwhile 3"]) {
    assert.equal(texts.filter((one) => one === text).length, 1, `${text} once`);
  }
  assert.ok(texts.indexOf("written offline 1") < texts.indexOf("written offline 2"));
});

test("a reload without a connection recovers by itself", async () => {
  // The page itself must load, so only the sockets are refused.
  let refuse = true;
  await alice.context.routeWebSocket(/\/ws$/, (socket) => {
    if (refuse) void socket.close({ code: 1013 });
    else socket.connectToServer();
  });
  // Changes are written with a little delay.
  await until("the device remembers", async () => (await alice.page.evaluate(lastArchived, direct)) === "written offline 2");
  await alice.page.reload();
  // The list and the newest messages are there without a server.
  await alice.id("connection-banner").waitFor();
  await alice.row(group).waitFor();
  await alice.sees("written offline 2", "sent");
  await alice.send("written after the reload");
  await alice.sees("written after the reload", "sending");
  await alice.page.reload();
  await alice.sees("written after the reload", "sending");
  refuse = false;
  await alice.online();
  await alice.sees("written after the reload", "sent");
  await bob.sees("written after the reload");
  assert.equal(await bob.message("written after the reload").count(), 1);
});

test("a reload keeps the session and shows the history", async () => {
  const count = 45;
  for (let i = 1; i <= count; i++) await (i % 2 ? alice : bob).send(`line ${i}`);
  await alice.sees(`line ${count - (count % 2 ? 0 : 1)}`, "sent");
  await bob.sees(`line ${count - (count % 2 ? 1 : 0)}`, "sent");
  await alice.sees(`line ${count - 1}`);
  const whole = await alice.transcript();
  noHoles(whole);

  await alice.page.reload();
  await alice.id("thread").waitFor();
  assert.equal(await alice.id("own-name").textContent(), alice.name);
  await alice.sees(whole.at(-1)[1]);
  await alice.online();
  assert.deepEqual((await alice.transcript()).at(-1), whole.at(-1));
  noHoles(await alice.transcript());
});

test("a second device reads history backwards, and gets what the first one sends", async () => {
  const whole = await bob.transcript();
  const desk = await stage.person("alice");
  await desk.login();
  await desk.open(direct);
  await desk.sees(whole.at(-1)[1]);
  assert.ok((await desk.transcript()).length < whole.length, "the first page is not everything");
  const log = desk.id("messages");
  assert.ok(await atEnd(log), "shows the newest");

  const anchor = (await desk.transcript())[0];
  await log.evaluate((el) => (el.scrollTop = 10));
  await until("older messages arrive", async () => (await desk.transcript())[0][0] < anchor[0]);
  const place = await desk.page.locator(`[data-seq="${anchor[0]}"]`).evaluate((el) => el.getBoundingClientRect().top);
  assert.ok(place > 0 && place < 400, `what was read stays on the screen (at ${place})`);
  await until("the beginning is reached", async () => {
    await log.evaluate((el) => (el.scrollTop = 0));
    return (await desk.transcript())[0][0] === 1;
  });
  const complete = await desk.transcript();
  noHoles(complete);
  assert.deepEqual(complete.slice(-whole.length), whole);
  await desk.id("to-end").click();
  await until("back at the end", () => atEnd(log));

  await alice.send("from my other device");
  const message = await desk.sees("from my other device");
  assert.equal(await message.getAttribute("data-own"), "true");
  await desk.context.close();
});

test("reading above is not disturbed by new messages", async () => {
  const log = alice.id("messages");
  await log.evaluate((el) => (el.scrollTop = el.scrollHeight / 2));
  await alice.id("to-end").waitFor();
  const before = await log.evaluate((el) => el.scrollTop);
  await bob.send("while you were reading");
  await alice.sees("while you were reading");
  assert.ok(Math.abs((await log.evaluate((el) => el.scrollTop)) - before) < 2);
  await alice.id("to-end").click();
});

test("the keyboard is enough", async () => {
  const { page } = alice;
  await alice.id("new-chat").focus();
  await page.keyboard.press("Enter");
  await alice.id("new-chat-dialog").waitFor();
  await page.keyboard.press("Escape");
  await alice.id("new-chat-dialog").waitFor({ state: "detached" });
  await page.getByTestId("conversation").first().focus();
  await page.keyboard.press("ArrowDown");
  const second = page.getByTestId("conversation").nth(1);
  assert.ok(await second.evaluate((el) => el === document.activeElement));
  await page.keyboard.press("Enter");
  const id = await second.getAttribute("data-conversation-id");
  await page.locator(`[data-testid="thread"][data-conversation-id="${id}"]`).waitFor();
  assert.ok(await alice.id("composer").evaluate((el) => el === document.activeElement), "ready to type");
  await page.keyboard.type("typed blind");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("second line");
  await page.keyboard.press("Enter");
  await until("sent", async () => (await alice.transcript()).at(-1)?.[1] === "typed blind\nsecond line");
});

test("dark mode", async () => {
  const background = () => alice.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await alice.page.emulateMedia({ colorScheme: "dark" });
  assert.notEqual(await background(), light);
  await alice.open(direct);
  await alice.picture("07-thread-desktop-dark");
  await alice.id("new-chat").click();
  await alice.id("new-group").click();
  await alice.picture("08-new-chat-desktop-dark");
  await alice.page.keyboard.press("Escape");
  await alice.page.emulateMedia({ colorScheme: "light" });
});

/** What tells of a lost connection takes no room and no touch from what stands there. */
async function offlineOnPhone(narrow) {
  const places = await bob.places("new-chat", "conversation-list");
  bob.expectTrouble = true;
  await bob.context.setOffline(true);
  await bob.id("connection-banner").waitFor();
  assert.deepEqual(await bob.places("new-chat", "conversation-list"), places, "nothing moves under the finger");
  await narrow();
  await bob.picture("14-offline-list-phone-light");
  await bob.open(group);
  await narrow();
  await bob.picture("15-offline-thread-phone-light");
  await bob.id("back").click();
  await bob.context.setOffline(false);
  await bob.online();
  bob.expectTrouble = false;
}

test("a phone shows one pane at a time", async () => {
  const { page } = bob;
  const narrow = async () => {
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `nothing sticks out (${overflow}px)`);
  };
  await page.setViewportSize(PHONE);
  assert.ok(await bob.id("thread").isVisible());
  assert.ok(!(await bob.id("conversation-pane").isVisible()));
  await narrow();
  await bob.picture("09-thread-phone-light");
  await bob.id("back").click();
  await bob.id("conversation-pane").waitFor();
  assert.equal(await bob.id("thread").count(), 0);
  await narrow();
  await bob.picture("10-list-phone-light");
  await offlineOnPhone(narrow);
  await page.emulateMedia({ colorScheme: "dark" });
  await bob.picture("11-list-phone-dark");
  await bob.open(group);
  await narrow();
  await bob.picture("12-group-phone-dark");
  await page.goBack();
  await bob.id("conversation-pane").waitFor();
  await bob.id("new-chat").click();
  await bob.id("new-group").click();
  await narrow();
  await bob.picture("13-new-chat-phone-dark");
  await page.keyboard.press("Escape");
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(DESKTOP);
  await bob.open(direct);
});

test("a second tab takes over, and can be taken back", async () => {
  const first = alice.page;
  const second = await alice.newPage();
  await alice.id("own-name").waitFor();
  await first.getByTestId("replaced").waitFor();
  alice.page = first;
  await alice.picture("14-replaced-desktop-light");
  await first.getByTestId("use-here").click();
  await first.getByTestId("own-name").waitFor();
  await second.getByTestId("replaced").waitFor();
  await second.close();
  await alice.open(direct);
  await alice.send("back in the first tab");
  await alice.sees("back in the first tab", "sent");
});

test("log out forgets the session, log in brings the history back", async () => {
  await alice.id("logout").click();
  await alice.id("auth-form").waitFor();
  assert.equal(await alice.page.evaluate(() => localStorage.getItem("corelane.session")), null);
  await until("nothing is left on the device", async () => (await alice.page.evaluate(countArchived)) === 0);
  await alice.page.reload();
  await alice.id("auth-form").waitFor();
  await alice.page.setViewportSize(PHONE);
  await alice.page.emulateMedia({ colorScheme: "dark" });
  await alice.picture("15-login-phone-dark");
  await alice.page.emulateMedia({ colorScheme: "light" });
  await alice.page.setViewportSize(DESKTOP);
  await alice.login();
  await alice.open(direct);
  await alice.sees("back in the first tab", "sent");
});

test("no page complained", () => {
  assert.deepEqual(stage.troubles(), []);
});
