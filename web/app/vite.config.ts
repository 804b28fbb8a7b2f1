import { defineConfig, type Plugin } from "vite";
import solid from "vite-plugin-solid";

/** The page asks for its own protection, so it holds whatever serves the files. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  // 'self' covers WebSockets in current browsers only.
  "connect-src 'self' ws: wss:",
  "base-uri 'none'",
  "form-action 'self'",
].join("; ");

/** Only in builds: the development server injects scripts and styles. */
function contentSecurityPolicy(): Plugin {
  return {
    name: "content-security-policy",
    apply: "build",
    transformIndexHtml: () => [
      { tag: "meta", attrs: { "http-equiv": "Content-Security-Policy", content: POLICY }, injectTo: "head-prepend" },
    ],
  };
}

const server = process.env["CORELANE_URL"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [solid(), contentSecurityPolicy()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      "/api": server,
      "/ws": { target: server, ws: true },
    },
  },
});
