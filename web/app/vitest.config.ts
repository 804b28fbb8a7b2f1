import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: {
    // Tests run against the SDK's source, so they need no build first.
    alias: { "@corelane/sdk": new URL("../sdk/src/index.ts", import.meta.url).pathname },
  },
  test: { environment: "node" },
});
