import type { Component, JSX } from "solid-js";

const Icon: Component<{ children: JSX.Element }> = (props) => (
  <svg
    class="icon"
    viewBox="0 0 24 24"
    fill="none"
    stroke="currentColor"
    stroke-width="2"
    stroke-linecap="round"
    stroke-linejoin="round"
    aria-hidden="true"
  >
    {props.children}
  </svg>
);

export const Logo: Component = () => (
  <svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
    <rect class="logo-back" width="32" height="32" rx="8" />
    <path class="logo-bubble" d="M8 11h12a4 4 0 0 1 4 4v1a4 4 0 0 1-4 4h-6l-5 4v-4H8z" />
  </svg>
);

export const BackIcon: Component = () => (
  <Icon>
    <path d="M15 5l-7 7 7 7" />
  </Icon>
);

export const PlusIcon: Component = () => (
  <Icon>
    <path d="M12 5v14M5 12h14" />
  </Icon>
);

export const PeopleIcon: Component = () => (
  <Icon>
    <circle cx="9" cy="8" r="3.5" />
    <path d="M2.5 20c.5-4 3-6 6.500-6s6 2 6.500 6M16 4.800a3.500 3.500 0 0 1 0 6.400M18 14.300c2 .8 3.200 2.700 3.500 5.700" />
  </Icon>
);

export const LogoutIcon: Component = () => (
  <Icon>
    <path d="M14 4H6a1 1 0 0 0-1 1v14a1 1 0 0 0 1 1h8M10 12h11M17.500 8l4 4-4 4" />
  </Icon>
);

export const SendIcon: Component = () => (
  <Icon>
    <path d="M4 12l16-8-5 16-3.500-6.500zM11.500 13.500L20 4" />
  </Icon>
);

export const CloseIcon: Component = () => (
  <Icon>
    <path d="M6 6l12 12M18 6L6 18" />
  </Icon>
);

export const DownIcon: Component = () => (
  <Icon>
    <path d="M12 5v14M6 13l6 6 6-6" />
  </Icon>
);

export const ClockIcon: Component = () => (
  <Icon>
    <circle cx="12" cy="12" r="8.500" />
    <path d="M12 7.500V12l3 2" />
  </Icon>
);

export const TickIcon: Component = () => (
  <Icon>
    <path d="M5 12.500l4.500 4.500L19 7.500" />
  </Icon>
);

export const AlertIcon: Component = () => (
  <Icon>
    <circle cx="12" cy="12" r="9" />
    <path d="M12 7.500v5.500M12 16.400v.1" />
  </Icon>
);
