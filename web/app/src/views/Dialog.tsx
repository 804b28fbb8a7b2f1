import { type Component, type JSX, onMount } from "solid-js";
import { CloseIcon } from "./icons.jsx";

/** A modal dialog: the browser keeps the focus inside and closes it on Escape. */
export const Dialog: Component<{ title: string; testId: string; onClose: () => void; children: JSX.Element }> = (props) => {
  let dialog: HTMLDialogElement | undefined;
  onMount(() => dialog?.showModal());
  return (
    <dialog
      ref={(el) => (dialog = el)}
      class="dialog"
      aria-label={props.title}
      data-testid={props.testId}
      onClose={() => props.onClose()}
      onClick={(event) => {
        // Outside the box a click hits the dialog element itself.
        if (event.target === dialog) dialog?.close();
      }}
    >
      <div class="dialog-box">
        <header class="bar">
          <h2>{props.title}</h2>
          <button type="button" class="icon-button" title="Close" onClick={() => dialog?.close()}>
            <CloseIcon />
            <span class="visually-hidden">Close</span>
          </button>
        </header>
        {props.children}
      </div>
    </dialog>
  );
};
