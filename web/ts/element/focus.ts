// Whoever uses a keyboard stays where they were when what they used is replaced.

import type { LitElement } from 'lit';

const PARTS = 'section, details, .stack';

/** Draws; if what had the focus is gone then, the first thing that can be used near its place has it. */
export function keepingFocus(element: LitElement, draw: () => void): void {
  const before = element.shadowRoot?.activeElement;
  const parts: Element[] = [];
  for (let part = before?.closest(PARTS); part; part = part.parentElement?.closest(PARTS)) parts.push(part);
  draw();
  if (!before || before.isConnected) return;
  for (const part of [...parts.filter((part) => part.isConnected), element.shadowRoot]) {
    const next = part?.querySelector<HTMLElement>('button:not([disabled]), summary');
    if (next) return next.focus();
  }
}
