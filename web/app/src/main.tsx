import { CorelaneClient } from "@corelane/sdk";
import { render } from "solid-js/web";
import { Chat } from "./chat.js";
import "./styles/base.css";
import "./styles/pieces.css";
import "./styles/shell.css";
import "./styles/thread.css";
import "./styles/dialogs.css";
import "./styles/phone.css";
import { App } from "./views/App.jsx";

const client = new CorelaneClient({
  baseUrl: location.origin,
  deviceClass: "web",
  // A person reads the newest messages and scrolls back for more; nobody needs thousands at once.
  tuning: { catchUpLimit: 1000 },
});

client.on("warning", ({ name, detail }) => console.warn(`${name}: ${detail}`));

const chat = new Chat(client);
render(() => <App chat={chat} />, document.getElementById("app")!);
chat.start();
