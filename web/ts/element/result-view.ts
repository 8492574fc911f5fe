// The result: headline, the table of candidates as the primary view, the map beside it, and where time went.

import { html, nothing, svg } from 'lit';
import type { Candidate, LocateResult, MemoryUse } from '../types.js';
import './globe-map.js';
import { size } from '../probe.js';
import { coordinates, countryName, distance, greatCircleKm, percent, placeName, seconds, summary } from './words.js';

/** What the result view needs of the element. */
export interface ResultView {
  chosen: number;
  language: string;
  photo: { lat: number; lon: number } | null;
  noMap: boolean;
  choose: (rank: number) => void;
}

/** Decimal places that say no more than the gazetteer knows. */
const DIGITS = 2;

export function results(result: LocateResult, view: ResultView) {
  const [best] = result.candidates;
  return html`
    <div role="status">
      <p class="headline">${best ? placeName(best, view.language) : 'Not located'}</p>
      <p class="soft">${summary(result)}</p>
    </div>
    ${best ? table(result.candidates, view) : nothing}
    ${view.photo ? html`<p class="note small">The file says ${coordinates(view.photo, DIGITS)}${best ? `: ${distance(greatCircleKm(view.photo, best))} from the first place` : ''}.</p>` : nothing}
    ${view.noMap ? nothing : html`<globe-map .places=${result.candidates} .chosen=${view.chosen} .photo=${view.photo}></globe-map>`}`;
}

function table(candidates: Candidate[], view: ResultView) {
  return html`<table>
    <caption class="visually-hidden">Candidates, best first. Arrow keys choose a place, Escape shows the whole map.</caption>
    <thead><tr><th scope="col">Place</th><th scope="col" class="number">Vote share</th><th scope="col" class="number">Radius</th></tr></thead>
    <tbody @keydown=${(event: KeyboardEvent) => onKey(event, candidates, view)}>
      ${candidates.map((place) => row(place, view))}
    </tbody>
  </table>`;
}

function row(place: Candidate, view: ResultView) {
  const chosen = place.rank === view.chosen;
  const region = place.city && place.region ? html`<span class="soft small">, <bdi>${place.region}</bdi></span>` : nothing;
  const name = place.city ?? place.region ?? countryName(place, view.language);
  const country = place.city || place.region ? html`<span class="soft small">, <bdi>${countryName(place, view.language)}</bdi></span>` : nothing;
  return html`<tr class=${chosen ? 'chosen' : ''}>
    <td><button type="button" aria-pressed=${chosen} tabindex=${chosen || (view.chosen === 0 && place.rank === 1) ? 0 : -1} data-rank=${place.rank} @click=${() => view.choose(place.rank)}>
      <span class="rank" aria-label="Rank ${place.rank}">${place.rank}</span><span><bdi>${name}</bdi>${region}${country}</span></button></td>
    <td class="number">
      <svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width="100" height="10"></rect>${svg`<rect width=${place.confidence * 100} height="10"></rect>`}</svg><span dir="ltr">${percent(place.confidence)}</span></td>
    <td class="number"><span dir="ltr">${distance(place.radius_km)}</span></td>
  </tr>`;
}

function onKey(event: KeyboardEvent, candidates: Candidate[], view: ResultView): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === 'Escape') {
    event.preventDefault();
    view.choose(0);
  }
  if (step === undefined) return;
  event.preventDefault();
  const rank = Math.min(candidates.length, Math.max(1, view.chosen + step));
  view.choose(rank);
  const body = event.currentTarget as HTMLElement;
  body.querySelector<HTMLButtonElement>(`[data-rank="${rank}"]`)?.focus();
}

/** Where the time went, and what it was computed with. */
export function timings(result: LocateResult, memory: MemoryUse | null) {
  const { timings: t } = result;
  const rate = t.decode_ms > 0 ? ` (${((t.answer_tokens * 1000) / t.decode_ms).toFixed(1)} a second)` : '';
  return html`<details><summary>Timings and settings of this result</summary><dl>
    <dt>Photo and prompt</dt><dd>${t.prompt_tokens} tokens, ${t.image_tokens} of the image; ${seconds(t.prepare_ms + t.prefill_ms)}</dd>
    <dt>Answers</dt><dd>${t.answer_tokens} tokens in ${seconds(t.decode_ms)}${rate}</dd>
    ${memory ? html`<dt>Memory of the engine</dt><dd>${size(memory.wasmBytes)}${memory.deviceBytes ? ` and ${size(memory.deviceReservedBytes)} of the graphics processor's` : ''}</dd>` : nothing}
    <dt>Sampling</dt><dd>temperature ${result.sampling.temperature}, seed ${result.seed}, ${result.samples} answers</dd>
    <dt>Computed by</dt><dd>${result.model} on ${result.adapter || 'the graphics processor'}</dd>
    <dt>Gazetteer</dt><dd>${result.gazetteer}</dd>
    <dt>Prompt</dt><dd>${result.prompt_sha256.slice(0, 12)}</dd>
  </dl></details>`;
}
