import type { Component } from "solid-js";
import { colourOf, initials } from "../format.js";

/** How many avatar colours the style sheet has. */
const COLOURS = 8;

/** Letters on a colour that belongs to the name. */
export const Avatar: Component<{ name: string; small?: boolean }> = (props) => (
  <span class={`avatar colour-${colourOf(props.name, COLOURS)}`} classList={{ small: props.small === true }} aria-hidden="true">
    {initials(props.name)}
  </span>
);
