// Browser, people and words of the end-to-end test.

import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Patience for things the server's rate limit may slow down. */
export const SLOW_MS = 60_000;

export const DESKTOP = { width: 1180, height: 760 };
export const PHONE = { width: 390, height: 844 };

/** One browser and the people in it; every person has a browser context of their own. */
export class Stage {
  #people = [];
  #server;

  static async open() {
    const stage = new Stage();
    stage.baseUrl = process.env.BASE_URL ?? (await stage.#startDevServer());
    stage.run = Math.random().toString(36).slice(2, 8);
    stage.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: FLAGS,
    });
    return stage;
  }

  /** Without BASE_URL the test brings the development server with it. */
  async #startDevServer() {
    const script = fileURLToPath(new URL("../dev-server/server.mjs", import.meta.url));
    this.#server = spawn(process.execPath, [script, "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
    for await (const line of createInterface(this.#server.stdout)) return line.split(" ").at(-1);
    throw new Error("the development server did not start");
  }

  async close() {
    await this.browser?.close();
    this.#server?.kill();
  }

  /** A page of a person who has yet to register. */
  async person(name, viewport = DESKTOP) {
    const context = await this.browser.newContext({ viewport, baseURL: this.baseUrl, locale: "en-GB" });
    context.setDefaultTimeout(15_000);
    const person = new Person(this, `${name}_${this.run}`, context);
    await person.newPage();
    this.#people.push(person);
    return person;
  }

  /** A registered person. */
  async join(name, viewport) {
    const person = await this.person(name, viewport);
    await person.register();
    return person;
  }

  /** Everything that went wrong in any page and was not announced. */
  troubles() {
    return this.#people.flatMap((person) => person.troubles.map((text) => `${person.name}: ${text}`));
  }
}

export class Person {
  password = "correct horse 7";
  troubles = [];
  /** While set, the browser may complain: about a network that the test took away, or an expected refusal. */
  expectTrouble = false;

  constructor(stage, name, context) {
    this.stage = stage;
    this.name = name;
    this.context = context;
  }

  async newPage() {
    const page = await this.context.newPage();
    const note = (text) => this.expectTrouble || this.troubles.push(text);
    page.on("console", (message) => message.type() === "error" && note(message.text()));
    page.on("pageerror", (error) => note(String(error)));
    page.on("dialog", (dialog) => {
      note(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    await page.goto("/");
    this.page = page;
    return page;
  }

  id(testId) {
    return this.page.getByTestId(testId);
  }

  async register() {
    await this.id("auth-register-tab").click();
    await this.#credentials(this.password);
    await this.id("own-name").waitFor();
  }

  async login(password = this.password) {
    await this.id("auth-login-tab").click();
    await this.#credentials(password);
  }

  async #credentials(password) {
    await this.id("auth-username").fill(this.name);
    await this.id("auth-password").fill(password);
    await this.id("auth-submit").click();
  }

  /** Starts a direct chat and answers its id. */
  async direct(other) {
    await this.id("new-chat").click();
    await this.id("direct-username").fill(other.name);
    await this.id("new-chat-submit").click();
    return this.openId();
  }

  async group(name, members) {
    await this.id("new-chat").click();
    await this.id("new-group").click();
    await this.id("group-name").fill(name);
    await this.id("group-members").fill(members.map((one) => one.name).join(", "));
    await this.id("new-chat-submit").click();
    return this.openId();
  }

  /** Where the named things stand on the screen. */
  async places(...testIds) {
    return Promise.all(testIds.map((testId) => this.id(testId).boundingBox()));
  }

  async openId() {
    await this.id("new-chat-dialog").waitFor({ state: "detached" });
    return this.id("thread").getAttribute("data-conversation-id");
  }

  row(conversationId) {
    return this.page.locator(`[data-conversation-id="${conversationId}"][data-testid="conversation"]`);
  }

  async open(conversationId) {
    await this.row(conversationId).click();
    await this.page.locator(`[data-testid="thread"][data-conversation-id="${conversationId}"]`).waitFor();
  }

  async send(text) {
    await this.id("composer").fill(text);
    await this.id("composer").press("Enter");
  }

  /** The message with exactly this text. */
  message(text) {
    return this.id("message").filter({ has: this.page.getByText(text, { exact: true }) });
  }

  /** Waits until the message is there, in the given state when it is an own one. */
  async sees(text, state) {
    const message = this.message(text).and(this.page.locator(state ? `[data-state="${state}"]` : "*"));
    try {
      await message.first().waitFor({ timeout: SLOW_MS });
    } catch (error) {
      await this.picture(`failed-${this.name}`);
      throw error;
    }
    return message.first();
  }

  /** The stored messages on the screen as [seq, text]. */
  async transcript() {
    return this.id("message").evaluateAll((all) =>
      all
        .filter((one) => one.dataset.seq !== undefined)
        .map((one) => [Number(one.dataset.seq), one.querySelector("[data-testid=message-text]").textContent]),
    );
  }

  async online() {
    await this.id("connection-banner").waitFor({ state: "detached", timeout: SLOW_MS });
  }

  /** Keeps a picture when SCREENSHOT_DIR is set. */
  async picture(name) {
    const directory = process.env.SCREENSHOT_DIR;
    if (!directory) return;
    await mkdir(directory, { recursive: true });
    await this.page.screenshot({ path: join(directory, `${name}.png`) });
  }
}

/** Waits until `check` answers true. */
export async function until(what, check, limitMs = SLOW_MS) {
  const end = Date.now() + limitMs;
  while (Date.now() < end) {
    if (await check()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`did not happen: ${what}`);
}
