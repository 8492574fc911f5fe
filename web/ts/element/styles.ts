// How the element looks. Colours follow the page's `color-scheme`; sizes are in rem and logical directions.

import { css } from 'lit';

export const theme = css`
  :host {
    --ink: light-dark(#1c2530, #e9edf0);
    --soft: light-dark(#55606d, #a3adb8);
    --line: light-dark(#dcdfe1, #2c353e);
    --paper: light-dark(#ffffff, #151b21);
    --sunk: light-dark(#f4f5f3, #0f1419);
    --accent: light-dark(#0f6a66, #63c7bd);
    --on-accent: light-dark(#ffffff, #06201e);
    --wash: light-dark(#e3f1ef, #16312f);
    --pin: light-dark(#b3401f, #ff9a6b);
    --clue: light-dark(#fbe9b7, #4d3d10);
    --bad: light-dark(#a3221b, #ff9d94);
    --land: light-dark(#bccbc4, #3a4a54);
    --sea: light-dark(#eef4f6, #10171d);
    --radius: 0.75rem;
    display: block;
    color: var(--ink);
    font: 1rem/1.5 system-ui, sans-serif;
    container-type: inline-size;
  }
  *, *::before, *::after { box-sizing: border-box; }
  [hidden] { display: none !important; }
  h2, h3, p, ul, dl, dd { margin: 0; padding: 0; }
  /* These words are English in any page: each paragraph takes the direction of its own first letter. */
  h2, h3, p, dd, dt, legend { unicode-bidi: plaintext; text-align: match-parent; }
  button, summary, .hint { unicode-bidi: plaintext; }
  h2, h3 { font-size: 0.8125rem; font-weight: 600; letter-spacing: 0.01em; color: var(--soft); }
  button, input, select {
    font: inherit;
    color: inherit;
    border: 1px solid var(--line);
    border-radius: 0.5rem;
    background: var(--paper);
    padding: 0.4rem 0.75rem;
    min-height: 2.5rem;
  }
  input { max-inline-size: 7rem; }
  button { cursor: pointer; }
  button:hover:not(:disabled) { border-color: var(--soft); }
  button:disabled { cursor: default; color: var(--soft); }
  button.primary { background: var(--accent); border-color: var(--accent); color: var(--on-accent); font-weight: 600; }
  button.primary:disabled { background: var(--sunk); border-color: var(--line); color: var(--soft); }
  button.quiet { background: none; border-color: transparent; color: var(--accent); padding-inline: 0.5rem; }
  :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
  summary { cursor: pointer; min-height: 2rem; color: var(--soft); }
  a { color: var(--accent); }
  .row { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; }
  .soft { color: var(--soft); }
  .small { font-size: 0.875rem; }
  .bad { color: var(--bad); }
  @media (prefers-reduced-motion: no-preference) {
    button, .bar > span { transition: border-color 120ms, background-color 120ms, inline-size 200ms; }
  }
  @media (forced-colors: active) {
    button.primary { border: 2px solid; }
  }
`;

export const layout = css`
  .stack { display: grid; gap: 1rem; }
  .panes { display: grid; gap: 1.5rem; grid-template-columns: minmax(0, 1fr); align-items: start; }
  @container (min-width: 52rem) {
    .panes { grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 2.5rem; }
  }
  .drop {
    display: grid;
    place-items: center;
    align-content: center;
    gap: 0.75rem;
    text-align: center;
    min-height: 15rem;
    padding: 1.5rem 1rem;
    border: 1.5px dashed var(--line);
    border-radius: var(--radius);
    background: var(--sunk);
  }
  .drop .row { justify-content: center; }
  .drop.over { border-color: var(--accent); background: var(--wash); }
  .drop .title { font-size: 1.25rem; font-weight: 600; }
  .photo { position: relative; margin: 0; border-radius: var(--radius); overflow: hidden; background: var(--sunk); }
  .photo img { display: block; inline-size: 100%; max-block-size: 26rem; object-fit: contain; }
  .photo.over { outline: 2px solid var(--accent); }
  fieldset { border: 0; margin: 0; padding: 0; min-inline-size: 0; }
  legend { padding: 0; font-size: 0.875rem; color: var(--soft); }
  .dial { display: inline-flex; border: 1px solid var(--line); border-radius: 0.5rem; overflow: clip; margin-block-start: 0.25rem; }
  .dial label { position: relative; padding: 0.45rem 0.85rem; cursor: pointer; }
  .dial label + label { border-inline-start: 1px solid var(--line); }
  .dial input { position: absolute; inset: 0; opacity: 0; margin: 0; max-inline-size: none; cursor: pointer; }
  fieldset:disabled { opacity: 0.6; }
  fieldset:disabled input { cursor: not-allowed; }
  .dial label:has(:checked) { background: var(--wash); color: var(--accent); font-weight: 600; }
  .dial label:has(:focus-visible) { outline: 2px solid var(--accent); outline-offset: -2px; }
  .headline { font-size: clamp(1.5rem, 5cqi, 2.25rem); line-height: 1.15; font-weight: 650; letter-spacing: -0.015em; }
  table { inline-size: 100%; border-collapse: collapse; }
  th { text-align: start; font-size: 0.8125rem; font-weight: 600; color: var(--soft); padding: 0.35rem 0.5rem; }
  td { padding: 0; border-block-start: 1px solid var(--line); vertical-align: middle; }
  td.number, th.number { text-align: end; font-variant-numeric: tabular-nums; padding: 0.35rem 0.5rem; white-space: nowrap; }
  td button { display: grid; grid-template-columns: auto minmax(0, 1fr); column-gap: 0.5rem; align-items: center; inline-size: 100%; text-align: start; border: 0; background: none; border-radius: 0.375rem; padding: 0.5rem; }
  td .rank {
    display: grid; place-items: center; inline-size: 1.5rem; block-size: 1.5rem;
    border-radius: 50%; border: 1.5px solid var(--pin); color: var(--pin); font-size: 0.8125rem; font-weight: 650;
  }
  tr.chosen td { background: var(--wash); }
  tr.chosen .rank { background: var(--pin); color: var(--paper); }
  .share { display: inline-block; inline-size: 3.5rem; block-size: 0.375rem; margin-inline-end: 0.5rem; border-radius: 1rem; vertical-align: middle; }
  .share rect { fill: var(--line); }
  .share rect + rect { fill: var(--pin); }
  :host(:dir(rtl)) .share { transform: scaleX(-1); }
  @container (max-width: 26rem) { .share { display: none; } }
  .reasoning {
    margin: 0; padding-block: 0.25rem; max-block-size: 22rem; overflow-y: auto; overflow-wrap: anywhere; white-space: pre-wrap;
    line-height: 1.65;
  }
  mark { background: var(--clue); color: inherit; border-radius: 0.2em; padding-inline: 0.1em; }
  mark.place { background: none; border-block-end: 2px solid var(--pin); border-radius: 0; padding: 0; }
  .note { border-inline-start: 3px solid var(--line); padding-inline-start: 0.75rem; }
  .note.bad { border-color: var(--bad); }
  dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.25rem 1rem; font-size: 0.875rem; }
  dt { color: var(--soft); }
  dd { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
  .settings { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 0.75rem; padding-block: 0.5rem; }
  .settings label { display: grid; gap: 0.25rem; font-size: 0.875rem; color: var(--soft); }
  .settings input, .settings select { max-inline-size: none; inline-size: 100%; color: var(--ink); }
  progress { inline-size: 100%; block-size: 0.5rem; accent-color: var(--accent); }
  .model { display: grid; gap: 0.75rem; padding: 1rem; border: 1px solid var(--line); border-radius: var(--radius); }
  .model.ready { padding: 0; border: 0; }
  .visually-hidden { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
  video { inline-size: 100%; border-radius: var(--radius); background: #000; }
`;
