// <globe-locator>: a photo in, reasoning and ranked places out. Nothing of the photo leaves the page.

import { LitElement, html, nothing, type PropertyValues } from 'lit';
import { customElement, property, query, state } from 'lit/decorators.js';
import { GlobeError, asGlobeError, stopIf } from '../errors.js';
import { toGeoJson } from '../geojson.js';
import { Globe } from '../globe.js';
import type { DeviceChoice, LocateEvent, LocateResult, MemoryUse, PhotoInfo, Precision } from '../types.js';
import { markClues } from './clues.js';
import { GlobeMap } from './globe-map.js';
import { sentence } from './model-panel.js';
import { results, timings } from './result-view.js';
import { keepingFocus } from './focus.js';
import { layout, theme } from './styles.js';
import { countryNames } from './words.js';
import './model-panel.js';

const PRECISIONS: readonly Precision[] = ['country', 'region', 'city'];

/** Refused before it is read: no photo is as large. */
const MAX_FILE_BYTES = 1 << 30;

/** A run as the page shows it. */
interface Running {
  stopper: AbortController;
  sample: number;
  tokens: number;
  begun: number;
  step: 'reading' | 'looking' | 'answering';
}

/**
 * Locates photos in the tab.
 *
 * @fires model-progress - how far a load is
 * @fires ready - a loaded Globe
 * @fires unload - the visitor put the model away
 * @fires token - text of an answer as it appears
 * @fires result - the places
 * @fires error - a GlobeError with its code
 * @csspart drop - where a photo is dropped
 * @csspart result - headline, table and map
 */
@customElement('globe-locator')
export class GlobeLocator extends LitElement {
  static override styles = [theme, layout];

  /** Address of the model folder. */
  @property() model = '';
  /** Which processor computes. */
  @property() device: DeviceChoice = 'auto';
  /** How finely places are shown. */
  @property() precision: Precision = 'city';
  /** Answers to sample. */
  @property({ type: Number }) samples = 8;
  /** 0 always takes the most likely token. */
  @property({ type: Number }) temperature = 0.7;
  /** Names the run: equal seeds give equal answers. */
  @property({ type: Number }) seed = 0;
  /** Most tokens of an answer. */
  @property({ type: Number, attribute: 'max-tokens' }) maxTokens = 512;
  /** Most candidates. */
  @property({ type: Number, attribute: 'top-k' }) topK = 5;
  /** Leaves the map out. */
  @property({ type: Boolean, attribute: 'no-map' }) noMap = false;
  /** Keeps no model after the tab is closed. */
  @property({ type: Boolean, attribute: 'no-cache' }) noCache = false;
  /** The result on show; set it to show one made elsewhere. */
  @property({ attribute: false }) result: LocateResult | null = null;
  /** The photo at hand. */
  @property({ attribute: false }) photo: File | Blob | null = null;

  /** Set once a model is loaded. */
  @property({ attribute: false }) globe: Globe | null = null;

  @state() private preview = '';
  @state() private facts: PhotoInfo | null = null;
  @state() private running: Running | null = null;
  @state() private stream = '';
  @state() private failure: GlobeError | null = null;
  @state() private chosen = 1;
  @state() private over = false;
  @state() private photoOnMap = false;
  @state() private camera: MediaStream | null = null;
  @state() private copied = '';
  @state() private memory: MemoryUse | null = null;
  /** The result on show, if the model at hand made it: only that one can be rounded. */
  private made: LocateResult | null = null;
  /** How precisely that one is shown. */
  private shownAt: Precision = 'city';
  /** The camera that is being asked for. */
  private opening: symbol | null = null;
  @query('globe-map') private map?: GlobeMap;
  @query('video') private video?: HTMLVideoElement;

  private readonly onPaste = (event: ClipboardEvent) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (!file || event.defaultPrevented || isEditable(event)) return; // pasted into something else
    event.preventDefault();
    void this.take(file);
  };

  override connectedCallback(): void {
    super.connectedCallback();
    document.addEventListener('paste', this.onPaste);
    setTimeout(() => countryNames(this.language()));
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    document.removeEventListener('paste', this.onPaste);
    this.stopCamera();
    this.forgetPhoto();
    this.unload();
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has('model') && this.globe && this.hasUpdated) this.unload(); // it is not the model that is named any more
    if (changed.has('photo')) this.onPhoto();
    if (changed.has('precision') && changed.get('precision') !== undefined) void this.round();
    if (changed.has('result') && this.result) this.failure = null;
    if (changed.has('result')) this.chosen = this.result?.candidates.length ? 1 : 0;
  }

  protected override update(changed: PropertyValues<this>): void {
    keepingFocus(this, () => super.update(changed));
  }

  protected override updated(changed: PropertyValues<this>): void {
    const best = this.result?.candidates[0];
    if (changed.has('result') && best) this.map?.focusOn(best);
    if (this.video && this.camera && this.video.srcObject !== this.camera) this.video.srcObject = this.camera;
  }

  /** Takes a photo: the preview appears, and its facts are read if the engine is there. */
  async take(file: File | Blob): Promise<void> {
    this.stopCamera();
    if (file.size > MAX_FILE_BYTES) {
      this.running?.stopper.abort();
      this.fail(new GlobeError('Image', 'this file has more than a gigabyte; choose a photo'));
      return;
    }
    this.photo = file;
    await this.updateComplete;
  }

  /** Locates the photo at hand. */
  async locate(): Promise<LocateResult | null> {
    const { globe, photo } = this;
    if (!globe || !photo || this.running) return null;
    const stopper = new AbortController();
    this.running = { stopper, sample: 0, tokens: 0, begun: 0, step: 'reading' };
    this.failure = null;
    this.result = null;
    this.stream = '';
    try {
      const { samples, topK, seed, maxTokens, precision, temperature } = this;
      const located = await globe.locate(photo, {
        samples, topK, seed, maxTokens, precision, sampling: { temperature }, signal: stopper.signal, onEvent: (event) => this.hear(event, stopper),
      });
      let [result, at] = [located, precision];
      while (at !== this.precision) {
        at = this.precision; // the dial was turned meanwhile
        const rounded = await globe.rounded(at);
        if (rounded) result = rounded;
        else [result, at, this.precision] = [located, precision, precision];
      }
      const memory = await globe.memory().catch(() => null); // the answer counts, whatever became of the device since
      stopIf(stopper.signal);
      this.show(result, at);
      this.memory = memory;
      this.tell('result', result);
      return result;
    } catch (thrown) {
      const error = asGlobeError(thrown);
      if (error.code !== 'Aborted') this.fail(error);
      return null;
    } finally {
      if (this.running?.stopper === stopper) this.running = null;
    }
  }

  private hear(event: LocateEvent, stopper: AbortController): void {
    if (this.running?.stopper !== stopper) return; // of a run that was stopped
    const now = performance.now();
    if (event.kind === 'prepared') this.running = { ...this.running, step: 'looking' };
    if (event.kind === 'prefilled') this.running = { ...this.running, step: 'answering', begun: now };
    if (event.kind !== 'tokens') return;
    if (event.sample !== this.running.sample) this.stream = '';
    this.stream += event.text;
    this.running = { ...this.running, sample: event.sample, tokens: this.running.tokens + event.ids.length };
    this.tell('token', { text: event.text, sample: event.sample });
  }

  private onPhoto(): void {
    // What was asked about the photo before ends with it, and nothing of it is kept.
    this.running?.stopper.abort();
    this.running = null;
    if (this.preview) void this.globe?.forget().catch(() => undefined);
    if (this.preview) URL.revokeObjectURL(this.preview);
    this.preview = this.photo ? URL.createObjectURL(this.photo) : '';
    this.facts = null;
    this.photoOnMap = false;
    this.failure = null;
    this.stream = '';
    this.made = null;
    if (this.hasUpdated) this.result = null;
    void this.inspect();
  }

  private async inspect(): Promise<void> {
    const photo = this.photo;
    if (!photo || !this.globe) return;
    try {
      const facts = await this.globe.inspect(photo);
      if (photo === this.photo) this.facts = facts;
    } catch (thrown) {
      const error = asGlobeError(thrown);
      if (photo === this.photo && error.code !== 'Aborted') this.fail(error);
    }
  }

  private show(result: LocateResult, precision: Precision): void {
    this.result = this.made = result;
    this.shownAt = precision;
  }

  /** Shows the last result at the precision of the dial, or turns the dial back. */
  private async round(): Promise<void> {
    const isMade = () => this.made !== null && this.made === this.result;
    const { precision, photo } = this;
    if (!isMade()) return;
    const rounded = await this.globe?.rounded(precision).catch(() => null);
    // Turned again, the later answer counts.
    if (!isMade() || precision !== this.precision || photo !== this.photo) return;
    if (rounded) {
      this.show(rounded, precision);
      return;
    }
    this.made = null; // the engine that knew more of it is gone
    this.precision = this.shownAt;
  }

  private forgetPhoto(): void {
    this.running?.stopper.abort();
    this.photo = null;
    if (this.preview) URL.revokeObjectURL(this.preview);
    this.preview = '';
  }

  private onReady(event: CustomEvent<Globe>): void {
    this.globe?.dispose();
    this.globe = event.detail;
    void this.inspect();
  }

  private unload(): void {
    this.globe?.dispose();
    this.globe = this.made = null;
    this.renderRoot?.querySelector('globe-model-panel')?.clear();
  }

  private fail(error: GlobeError): void {
    this.failure = error;
    this.tell('error', error);
  }

  private tell(type: string, detail: unknown): void {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }

  override render() {
    const drag = { over: (event: DragEvent) => (event.preventDefault(), (this.over = true)), leave: () => (this.over = false) };
    // Anywhere on the element: a browser would open a file that is dropped beside the photo, and the model would be gone.
    return html`
      <div class="stack" @dragover=${drag.over} @dragleave=${drag.leave} @drop=${this.onDrop}>
        <globe-model-panel .model=${this.model} .device=${this.device} .cache=${!this.noCache} @ready=${this.onReady} @unload=${this.unload}></globe-model-panel>
        <div class="panes">
          <div class="stack">${this.photoPane()} ${this.controls()}</div>
          <div class="stack" part="result">${this.resultPane()}</div>
        </div>
      </div>`;
  }

  private photoPane() {
    const body = this.camera ? this.cameraView() : this.preview ? this.photoView() : this.dropZone();
    return html`<section aria-label="Photo">
      ${body}
      <input id="file" type="file" accept="image/jpeg,image/png,image/webp,image/gif" hidden aria-label="Photo" @change=${this.onFile} />
    </section>`;
  }

  private dropZone() {
    return html`<div class=${this.over ? 'drop over' : 'drop'} part="drop">
      <p class="title">Where was this photo taken?</p>
      <p class="soft">Drop a photo here, or paste one.</p>
      <div class="row"><button type="button" class="primary" @click=${this.choose}>Choose a photo</button>
      <button type="button" @click=${this.startCamera}>Use the camera</button></div>
    </div>`;
  }

  private photoView() {
    return html`<figure class=${this.over ? 'photo over' : 'photo'} part="drop"><img src=${this.preview} alt="The photo to locate" @error=${this.onUnreadable} /></figure>`;
  }

  /** Without the engine nobody can say more precisely what the file is. */
  private onUnreadable(): void {
    if (this.globe || this.failure) return;
    this.fail(new GlobeError('Image', 'this file is no image that the browser can show; use a JPEG, PNG, WebP or GIF file, and convert HEIC photos to JPEG'));
  }

  private cameraView() {
    return html`<div class="stack"><video autoplay playsinline muted aria-label="Camera"></video>
      <div class="row"><button type="button" class="primary" @click=${this.snap}>Take the photo</button>
      <button type="button" @click=${this.stopCamera}>Cancel</button></div></div>`;
  }

  private controls() {
    const { running, photo, globe } = this;
    if (!photo) return this.settings();
    return html`
      <div class="row">
        <button type="button" class=${running ? '' : 'primary'} ?disabled=${!running && !globe} @click=${() => (running ? running.stopper.abort() : void this.locate())}>${running ? 'Stop' : 'Locate'}</button>
        <button type="button" @click=${this.choose} ?disabled=${running !== null}>Another photo</button>
        ${globe ? nothing : html`<span class="soft small hint">Load the model first.</span>`}
      </div>
      ${this.exif()} ${this.dial()} ${this.settings()}`;
  }

  private dial() {
    // What another model made, or one that is gone, cannot be rounded here.
    const fixed = this.result !== null && this.result !== this.made;
    return html`<fieldset ?disabled=${fixed}>
      <legend>Show places as precisely as</legend>
      <div class="dial">
        ${PRECISIONS.map(
          (value) => html`<label><input type="radio" name="precision" value=${value} .checked=${this.precision === value} @change=${() => (this.precision = value)} />${value}</label>`,
        )}
      </div>
    </fieldset>`;
  }

  private settings() {
    const number = (label: string, value: number, min: number, step: number | 'any', set: (value: number) => void) => html`<label>${label}
      <input type="number" min=${min} step=${step} .value=${String(value)} @change=${(event: Event) => {
        const input = event.target as HTMLInputElement;
        if (input.checkValidity() && !Number.isNaN(input.valueAsNumber)) set(input.valueAsNumber);
        else input.value = String(value); // an empty field, or half a number
      }} /></label>`;
    return html`<details><summary>Settings</summary><div class="settings">
      ${number('Answers', this.samples, 1, 1, (value) => (this.samples = value))}
      ${number('Temperature', this.temperature, 0, 'any', (value) => (this.temperature = value))}
      ${number('Seed', this.seed, 0, 1, (value) => (this.seed = value))}
      ${number('Longest answer, tokens', this.maxTokens, 1, 1, (value) => (this.maxTokens = value))}
      <label>Computes on
        <select ?disabled=${this.globe !== null} @change=${(event: Event) => (this.device = (event.target as HTMLSelectElement).value as DeviceChoice)}>
          <option value="auto" ?selected=${this.device === 'auto'}>the best there is</option>
          <option value="gpu" ?selected=${this.device === 'gpu'}>the graphics processor</option>
          <option value="cpu" ?selected=${this.device === 'cpu'}>the processor (reference)</option>
        </select></label>
    </div></details>`;
  }

  private exif() {
    const { facts, result } = this;
    if (!facts) return nothing;
    if (!facts.gps) return html`<p class="soft small">${facts.width} × ${facts.height}. The file holds no position${facts.warning ? ` that can be read: ${facts.warning}` : ''}.</p>`;
    return html`<div class="note small"><p>The file itself holds a position. The model does not see it.</p>
      ${result ? html`<button type="button" class="quiet" aria-pressed=${this.photoOnMap} @click=${() => (this.photoOnMap = !this.photoOnMap)}>${this.photoOnMap ? 'Hide it' : 'Compare with it'}</button>` : nothing}</div>`;
  }

  private resultPane() {
    if (this.failure) {
      return html`<p class="note bad" role="alert">${sentence(this.failure.message)}</p>`;
    }
    const { running, result } = this;
    if (!running && !result) return this.noMap ? nothing : this.emptyMap();
    return html`
      ${running ? this.progressLine(running) : nothing}
      ${result ? results(result, { chosen: this.chosen, language: this.language(), photo: this.photoOnMap ? result.exif_gps : null, noMap: this.noMap, choose: (rank) => this.choosePlace(rank) }) : nothing}
      ${this.reasoning()}
      ${result ? html`<div class="row"><button type="button" @click=${() => this.copy('JSON')}>Copy as JSON</button>
        <button type="button" @click=${() => this.copy('GeoJSON')}>Copy as GeoJSON</button><span role="status" class="soft small">${this.copied}</span></div>
        ${timings(result, this.memory)}` : nothing}`;
  }

  private emptyMap() {
    return html`<globe-map></globe-map>`;
  }

  private progressLine(running: Running) {
    const words = { reading: 'Reading the photo', looking: 'Looking at the photo', answering: `Answer ${running.sample + 1} of ${this.samples}` }[running.step];
    const elapsed = performance.now() - running.begun;
    const speed = running.step === 'answering' && running.tokens > 8 ? `, ${((running.tokens * 1000) / elapsed).toFixed(1)} tokens a second` : '';
    return html`<p class="soft"><span role="status">${words}</span><span aria-hidden="true">${speed}</span></p>`;
  }

  private reasoning() {
    if (this.precision !== 'city') return html`<p class="soft small">The model's text may name a city, so it is not shown at this precision.</p>`;
    const leading = this.result?.answers.find((answer) => answer.city && answer.city === this.result?.candidates[0]?.city) ?? this.result?.answers[0];
    const text = this.running ? this.stream : leading?.reasoning || leading?.text || this.stream;
    if (!text) return nothing;
    const places = (this.result?.candidates ?? []).flatMap((place) => [place.city, place.region, place.country].filter((name) => name !== null));
    const runs = markClues(text, places).map(({ text, kind }) => (kind === 'plain' ? text : html`<mark class=${kind}>${text}</mark>`));
    return html`<section class="stack" aria-labelledby="why"><h3 id="why">What the model wrote. It is not evidence: check the marked clues in the photo.</h3>
      <p class="reasoning" tabindex="0" role="group" aria-labelledby="why">${runs}</p></section>`;
  }

  private language(): string {
    return this.closest('[lang]')?.getAttribute('lang') || navigator.language;
  }

  private choosePlace(rank: number): void {
    this.chosen = rank;
    const place = this.result?.candidates.find((candidate) => candidate.rank === rank);
    if (place) this.map?.focusOn(place);
    else this.map?.reset();
  }

  private async copy(format: 'JSON' | 'GeoJSON'): Promise<void> {
    if (!this.result) return;
    const name = this.photo instanceof File ? this.photo.name : '';
    const value = format === 'JSON' ? this.result : toGeoJson(this.result, name);
    try {
      await navigator.clipboard.writeText(JSON.stringify(value, null, 2));
      this.copied = `${format} copied.`;
    } catch {
      this.copied = 'The browser did not allow copying.';
    }
  }

  private choose(): void {
    this.renderRoot.querySelector<HTMLInputElement>('#file')?.click();
  }

  private onFile(event: Event): void {
    const input = event.target as HTMLInputElement;
    const file = input.files?.[0];
    input.value = ''; // the same file can be chosen again
    if (file) void this.take(file);
  }

  private onDrop(event: DragEvent): void {
    event.preventDefault();
    this.over = false;
    const file = event.dataTransfer?.files[0];
    if (file) void this.take(file);
  }

  private async startCamera(): Promise<void> {
    if (this.opening) return;
    const opening = (this.opening = Symbol('camera'));
    try {
      const camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
      if (this.opening === opening) this.camera = camera;
      else release(camera); // a photo came before it, or the element is gone
    } catch {
      if (this.opening === opening) this.fail(new GlobeError('Image', 'no camera can be used here; choose a photo instead'));
    } finally {
      if (this.opening === opening) this.opening = null;
    }
  }

  private async snap(): Promise<void> {
    const video = this.video;
    if (!video?.videoWidth) return; // nothing was seen yet
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext('2d')?.drawImage(video, 0, 0);
    await this.take(await canvas.convertToBlob({ type: 'image/png' }));
  }

  private stopCamera(): void {
    this.opening = null;
    if (this.camera) release(this.camera);
    this.camera = null;
  }
}

/** Whether text or files are pasted into a field. */
function isEditable(event: Event): boolean {
  const [at] = event.composedPath();
  return at instanceof HTMLElement && (at.isContentEditable || at.matches('input, textarea, select'));
}

function release(camera: MediaStream): void {
  for (const track of camera.getTracks()) track.stop();
}

declare global {
  interface HTMLElementTagNameMap {
    'globe-locator': GlobeLocator;
  }
}
