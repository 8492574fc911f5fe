// <globe-model-panel>: what the model costs, consent to load it, progress, and what is stored.

import { LitElement, html, nothing, type PropertyValues } from 'lit';
import { customElement, property, state } from 'lit/decorators.js';
import { GlobeError, asGlobeError } from '../errors.js';
import { Globe } from '../globe.js';
import { size, type Probe } from '../probe.js';
import type { DeviceChoice, ModelInfo, Progress, StoredModel } from '../types.js';
import { folderUrl } from '../urls.js';
import { keepingFocus } from './focus.js';
import { layout, theme } from './styles.js';
import { progressWords, seconds } from './words.js';

/** Loads a model and hands it over in a `ready` event. */
@customElement('globe-model-panel')
export class GlobeModelPanel extends LitElement {
  static override styles = [theme, layout];

  @property() model = '';
  @property() device: DeviceChoice = 'auto';
  @property({ attribute: false }) cache = true;

  @state() private probed: Probe | null = null;
  @state() private progress: Progress | null = null;
  @state() private failure: GlobeError | null = null;
  @state() private info: ModelInfo | null = null;
  @state() private stored: StoredModel[] = [];
  /** What is known of the stored model that was checked last. */
  @state() private checked: { words: string; bad: boolean } | null = null;
  private stopper: AbortController | null = null;
  private looks = 0;

  override connectedCallback(): void {
    super.connectedCallback();
    if (this.hasUpdated) void this.look(); // else when the address is known
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.stopper?.abort();
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (!changed.has('model') || !this.hasUpdated) return;
    this.stopper?.abort(); // what it loads is of another address
    this.failure = null;
  }

  protected override update(changed: PropertyValues<this>): void {
    keepingFocus(this, () => super.update(changed));
  }

  protected override updated(changed: PropertyValues<this>): void {
    if (changed.has('model') || changed.has('device') || changed.has('cache')) void this.look();
  }

  /** Facts before any download. */
  async look(): Promise<void> {
    if (!this.isConnected) return;
    const look = ++this.looks;
    this.probed = null;
    const [probed, stored] = await Promise.all([Globe.probe(this.model || undefined, { device: this.device, cache: this.cache }), Globe.stored().catch(() => [])]);
    if (look !== this.looks) return; // a later one counts
    this.probed = probed;
    this.stored = stored;
  }

  /** Loads from the address of the attribute, or from files. */
  async load(files?: File[]): Promise<void> {
    if (this.stopper) return;
    const stopper = (this.stopper = new AbortController());
    this.failure = null;
    this.progress = { stage: 'fetch', done: 0, total: this.probed?.model?.bytes ?? 0 };
    const onProgress = (progress: Progress) => {
      this.progress = progress;
      this.tell('model-progress', progress);
    };
    try {
      const source = files ? { files } : { url: this.model };
      const globe = await Globe.load({ ...source, device: this.device, cache: this.cache, warm: false, signal: stopper.signal, onProgress });
      if (stopper.signal.aborted) {
        globe.dispose(); // the element was removed, or the visitor stopped in the last moment
        return;
      }
      this.info = globe.info;
      this.tell('ready', globe);
    } catch (thrown) {
      this.failure = asGlobeError(thrown);
      if (this.failure.code !== 'Aborted') this.tell('error', this.failure);
    } finally {
      this.stopper = null;
      this.progress = null;
      if (this.isConnected) this.stored = await Globe.stored().catch(() => []);
    }
  }

  /** Shows the panel as before a load. */
  clear(): void {
    this.info = null;
    void this.look();
  }

  private tell(type: string, detail: unknown): void {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }

  override render() {
    if (this.info) return this.ready(this.info);
    return html`<section class="model" aria-labelledby="model-title">
      <h2 id="model-title">Model</h2>
      ${this.progress ? this.loading(this.progress) : this.offer()}
      ${this.failure && this.failure.code !== 'Aborted' ? html`<p class="note bad" role="alert">${sentence(this.failure.message)}</p>` : nothing}
    </section>`;
  }

  private offer() {
    const probed = this.probed;
    if (!probed) return html`<p class="soft">Looking at what this browser can do…</p>`;
    const bytes = probed.model?.bytes;
    const { digest } = probed.model ?? {};
    const kept = this.cache && this.stored.some((model) => model.url === folderUrl(this.model) && model.complete && model.digest === digest);
    const label = kept ? 'Load the stored model' : bytes ? `Download and load, ${size(bytes)}` : 'Load the model';
    return html`
      <p class=${probed.fits ? '' : 'bad'}>${sentence(probed.reason)}</p>
      ${probed.fits && bytes && !kept ? html`<p class="soft small">${probed.model?.keeps ? 'The model stays on this device until you delete it.' : 'The model is gone when this page is closed.'} Photos never leave it.</p>` : nothing}
      <div class="row">
        ${this.model ? html`<button type="button" class="primary" ?disabled=${!probed.fits} @click=${() => this.load()}>${label}</button>` : nothing}
        ${probed.code === 'Network' ? html`<button type="button" @click=${() => this.look()}>Try again</button>` : nothing}
        <button type="button" @click=${this.choose}>Use a model folder of mine…</button>
        <input id="folder" type="file" webkitdirectory multiple hidden aria-label="Model folder" @change=${this.onFolder} />
      </div>
      ${this.storage()}`;
  }

  private loading(progress: Progress) {
    const known = progress.total > 0;
    return html`
      <p role="status">${progressWords(progress)}</p>
      ${known
        ? html`<progress aria-label="Loading the model" max=${progress.total} .value=${progress.done}></progress>`
        : html`<progress aria-label="Loading the model"></progress>`}
      <div class="row"><button type="button" @click=${() => this.stopper?.abort()}>Stop</button>
      ${progress.stage === 'fetch' && this.probed?.model?.keeps ? html`<span class="soft small">What has arrived is kept; the download goes on from there.</span>` : nothing}</div>`;
  }

  private ready(info: ModelInfo) {
    const where = info.device === 'cpu' ? 'on the processor, slowly' : `on ${info.adapter || 'the graphics processor'}`;
    return html`<details>
      <summary>Model ready ${where}</summary>
      <dl>
        <dt>Architecture</dt><dd>${info.architecture}</dd>
        ${info.bytes ? html`<dt>Size</dt><dd>${size(info.bytes)}</dd>` : nothing}
        <dt>Verified</dt><dd>${info.verified ? 'every byte, by SHA-256' : 'no: the folder has no manifest'}</dd>
        <dt>Loaded in</dt><dd>${seconds(info.loadMs)}</dd>
        <dt>Gazetteer</dt><dd>${info.gazetteer}</dd>
      </dl>
      <div class="row"><button type="button" class="quiet" @click=${() => this.tell('unload', null)}>Unload the model</button></div>
      ${this.storage()}
    </details>`;
  }

  private storage() {
    if (this.stored.length === 0) return nothing;
    return html`<details><summary>Stored models</summary>
      ${this.stored.map(
        (model) => html`<div class="row small">
          <span>${new URL(model.url).pathname}, ${size(model.bytes)}${model.complete ? '' : ', incomplete'}</span>
          <button type="button" class="quiet" @click=${() => this.check(model)} aria-label="Check ${new URL(model.url).pathname}">Check</button>
          <button type="button" class="quiet" @click=${() => this.forget(model)} aria-label="Delete ${new URL(model.url).pathname}">Delete</button>
        </div>`,
      )}
      <p role="status" class=${this.checked?.bad ? 'bad small' : 'soft small'}>${this.checked?.words ?? ''}</p>
    </details>`;
  }

  /** Compares a stored model with its digests. */
  private async check({ url }: StoredModel): Promise<void> {
    const tell = (words: string, bad = false) => (this.checked = { words, bad });
    const onProgress = ({ done, total }: Progress) => tell(`Checking: ${size(done)} of ${size(total)}`);
    tell('Checking…');
    try {
      const { bytes, damaged, missing } = await Globe.verify(url, { onProgress });
      if (damaged.length > 0) tell(`${damaged.join(', ')} was damaged and is deleted. The next load fetches it again.`, true);
      else if (missing.length > 0) tell(`${size(bytes)} are as they should be; the download is not complete.`);
      else tell(`All ${size(bytes)} are as they should be.`);
    } catch (thrown) {
      tell(sentence(asGlobeError(thrown).message), true);
    }
    this.stored = await Globe.stored().catch(() => []);
  }

  private async forget(model: StoredModel): Promise<void> {
    this.checked = null;
    try {
      await Globe.remove(model.url);
    } catch (thrown) {
      this.checked = { words: sentence(asGlobeError(thrown).message), bad: true };
      this.stored = await Globe.stored().catch(() => this.stored); // the list stays open, with the words in it
      return;
    }
    await this.look();
  }

  private choose(): void {
    this.renderRoot.querySelector<HTMLInputElement>('#folder')?.click();
  }

  private onFolder(event: Event): void {
    const files = [...((event.target as HTMLInputElement).files ?? [])];
    if (files.length > 0) void this.load(files);
  }
}

/** Messages start in lower case, as errors do; a visitor reads a sentence. */
export function sentence(message: string): string {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

declare global {
  interface HTMLElementTagNameMap {
    'globe-model-panel': GlobeModelPanel;
  }
}
