#!/usr/bin/env node
// Development server: the built page, REST and WebSocket over the chat model in memory. For working on the
// page without the real server; it forgets everything when it ends.
//
//   node dev-server/server.mjs [--port 8090]

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";
import { ChatModel } from "./model.mjs";

const ROOT = fileURLToPath(new URL("../app/dist/", import.meta.url));
const BODY_MAX_BYTES = 64 * 1024;
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

const model = new ChatModel({ rate: { perSecond: 20, burst: 50 } });

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url ?? "/", "http://localhost");
  const handle = pathname.startsWith("/api/") ? rest : file;
  handle(request, response, pathname).catch((error) => {
    console.error(error);
    response.writeHead(500).end();
  });
});

async function rest(request, response, pathname) {
  let text = "";
  for await (const chunk of request) {
    text += chunk;
    if (text.length > BODY_MAX_BYTES) return void response.writeHead(413).end();
  }
  const bearer = request.headers.authorization?.replace(/^Bearer /, "");
  const { status, body } = model.rest(request.method, pathname, text === "" ? {} : JSON.parse(text), bearer);
  const type = status >= 400 ? "application/problem+json" : "application/json";
  response.writeHead(status, { "content-type": type });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

async function file(_request, response, pathname) {
  const path = normalize(join(ROOT, pathname === "/" ? "index.html" : decodeURIComponent(pathname)));
  if (!path.startsWith(ROOT.endsWith(sep) ? ROOT : ROOT + sep)) return void response.writeHead(404).end();
  try {
    const bytes = await readFile(path);
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" });
    response.end(bytes);
  } catch {
    response.writeHead(404).end();
  }
}

const sockets = new WebSocketServer({ server, path: "/ws", maxPayload: BODY_MAX_BYTES });
sockets.on("connection", (socket) => {
  const connection = model.open({
    send: (text) => socket.send(text),
    close: (code, reason) => socket.close(code, reason),
  });
  socket.on("message", (data) => model.text(connection, data.toString()));
  socket.on("close", () => model.closed(connection));
  socket.on("error", () => model.closed(connection));
});

const at = process.argv.indexOf("--port");
server.listen(at > 0 ? Number(process.argv[at + 1]) : 8090, "127.0.0.1", () => {
  console.log(`dev server ready on http://127.0.0.1:${server.address().port}`);
});
