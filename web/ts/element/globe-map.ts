// <globe-map>: an offline world map with places, their radii and a photo's own position.

import { geoCircle, geoNaturalEarth1, geoPath, type GeoProjection } from 'd3-geo';
import { LitElement, css, html, nothing, svg, type PropertyValues } from 'lit';
import { customElement, property, state } from 'lit/decorators.js';
import type { Candidate } from '../types.js';
import { mapUrl } from '../urls.js';
import { drawWorld, readWorld, type Drawing, type World } from './draw-world.js';
import { theme } from './styles.js';

const [WIDTH, HEIGHT] = [720, 400];
const KM_PER_DEGREE = 111.195; // of a great circle, on a sphere of 6371 km
const MAX_ZOOM = 64;
/** From the middle of the photo's mark to its corners. */
const PHOTO_MARK_PX = 6;

interface View {
  lat: number;
  lon: number;
  zoom: number;
}

const WHOLE: View = { lat: 12, lon: 8, zoom: 1 };

/** Read once for all maps of a page, with the drawing that every map starts with. */
let world: Promise<{ data: World; whole: Drawing }> | null = null;

async function read(): Promise<{ data: World; whole: Drawing }> {
  const data = await readWorld(mapUrl());
  return { data, whole: await drawWorld(data, projectionOf(WHOLE)) };
}

function projectionOf({ lat, lon, zoom }: View): GeoProjection {
  const projection = geoNaturalEarth1().scale(WIDTH / 5.6);
  const centred = zoom === 1 ? projection : projection.rotate([-lon, 0]).scale((WIDTH / 5.6) * zoom).center([0, lat]);
  return centred.translate([WIDTH / 2, HEIGHT / 2]).clipExtent([[-9, -9], [WIDTH + 9, HEIGHT + 9]]);
}

/** Starts reading the map, so that it is there before a page is sealed. */
export function preloadMap(): Promise<{ data: World; whole: Drawing }> {
  world ??= read().catch((error: unknown) => {
    world = null;
    throw error;
  });
  return world;
}

/** A labelled supplement to the table of candidates. */
@customElement('globe-map')
export class GlobeMap extends LitElement {
  static override styles = [
    theme,
    css`
      :host { position: relative; }
      svg { display: block; inline-size: 100%; block-size: auto; border-radius: var(--radius); background: var(--sea); touch-action: pan-y; cursor: grab; direction: ltr; }
      svg:active { cursor: grabbing; }
      .land { fill: var(--land); }
      .borders { fill: none; stroke: var(--sea); stroke-width: 0.7; }
      .graticule { fill: none; stroke: var(--line); stroke-width: 0.4; }
      .circle { fill: var(--pin); fill-opacity: 0.14; stroke: var(--pin); stroke-opacity: 0.7; stroke-width: 1; }
      .pin circle { fill: var(--paper); stroke: var(--pin); stroke-width: 2; }
      .pin text { fill: var(--pin); font: 650 12px system-ui, sans-serif; text-anchor: middle; dominant-baseline: central; }
      .pin.chosen circle { fill: var(--pin); }
      .pin.chosen text { fill: var(--paper); }
      .photo { fill: var(--paper); stroke: var(--accent); stroke-width: 2.5; }
      .tools { position: absolute; inset-block-start: 0.5rem; inset-inline-end: 0.5rem; display: flex; gap: 0.25rem; }
      .tools button { inline-size: 2.5rem; padding: 0; }
      .tools button.wide { inline-size: auto; padding-inline: 0.75rem; }
      @container (max-width: 30rem) { .tools { position: static; padding-block-start: 0.5rem; } }
      .frame { position: relative; }
      p { padding-block-start: 0.5rem; }
    `,
  ];

  /** Candidates, best first. */
  @property({ attribute: false }) places: Candidate[] = [];
  /** Rank of the chosen one. */
  @property({ type: Number }) chosen = 0;
  /** Position written in the photo, where the reader asked to see it. */
  @property({ attribute: false }) photo: { lat: number; lon: number } | null = null;

  @state() private failed = '';
  /** What the map shall show. */
  @state() private view = WHOLE;
  /** What it shows: the same a moment later. */
  @state() private drawn: { view: View; paths: Drawing } | null = null;
  /** Units of the drawing that are one pixel of the screen. */
  @state() private unit = 1;
  private data: World | null = null;
  private drawing = false;
  private readonly resized = new ResizeObserver(([entry]) => {
    const width = entry?.contentRect.width ?? 0;
    if (width > 0) this.unit = WIDTH / width;
  });
  private drag: { x: number; y: number } | null = null;

  override connectedCallback(): void {
    super.connectedCallback();
    this.resized.observe(this);
    preloadMap().then(
      ({ data, whole }) => {
        this.data = data;
        this.drawn = { view: WHOLE, paths: whole };
        void this.draw();
      },
      (error: Error) => (this.failed = error.message),
    );
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.resized.disconnect();
  }

  protected override willUpdate(changed: PropertyValues): void {
    if (changed.has('view')) void this.draw();
  }

  /** Draws until the view is the one that was last asked for; views in between are left out. */
  private async draw(): Promise<void> {
    if (this.drawing || !this.data) return;
    this.drawing = true;
    while (this.drawn?.view !== this.view) {
      const view = this.view;
      const paths = await drawWorld(this.data, projectionOf(view));
      this.drawn = { view, paths };
    }
    this.drawing = false;
  }

  /** Shows a candidate with its surroundings. */
  focusOn(place: { lat: number; lon: number; radius_km: number }): void {
    // A city keeps its country in sight; a country, its neighbours.
    const zoom = Math.min(7, Math.max(1.8, 1500 / Math.max(place.radius_km, 200)));
    this.view = { lat: place.lat, lon: place.lon, zoom };
  }

  /** Shows the whole world. */
  reset(): void {
    this.view = WHOLE;
  }

  override render() {
    if (this.failed) return html`<p class="soft small">${this.failed}. The table shows the same places.</p>`;
    const { drawn } = this;
    const projection = projectionOf(drawn?.view ?? this.view);
    return html`
      <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${this.label()} tabindex="0"
        @keydown=${this.onKey} @pointerdown=${this.onDown} @pointermove=${this.onMove} @pointerup=${this.onUp} @pointercancel=${this.onUp} @wheel=${this.onWheel}>
        ${drawn
          ? svg`<path class="graticule" d=${drawn.paths.graticule}></path>
              <path class="land" d=${drawn.paths.land}></path>
              <path class="borders" d=${drawn.paths.borders}></path>`
          : nothing}
        ${this.places.map((place) => this.circle(place, projection))}
        ${[...this.places].reverse().map((place) => this.pin(place, projection))}
        ${this.photoMark(projection)}
      </svg>
      <div class="tools" role="group" aria-label="Map">
        <button type="button" aria-label="Zoom in" @click=${() => this.zoomBy(2)}>+</button>
        <button type="button" aria-label="Zoom out" @click=${() => this.zoomBy(0.5)}>−</button>
        <button type="button" class="wide" @click=${this.reset}>World</button>
      </div>`;
  }

  private label(): string {
    const names = this.places.map((place) => `${place.rank}: ${[place.city, place.region, place.country].filter(Boolean).join(', ')}`);
    return names.length > 0 ? `World map. ${names.join('. ')}. Arrow keys move, plus and minus zoom.` : 'World map without places.';
  }

  private circle(place: Candidate, projection: GeoProjection) {
    const shape = geoCircle().center([place.lon, place.lat]).radius(place.radius_km / KM_PER_DEGREE)();
    return svg`<path class="circle" d=${geoPath(projection).digits(1)(shape) ?? ''}></path>`;
  }

  private pin(place: Candidate, projection: GeoProjection) {
    const at = projection([place.lon, place.lat]);
    if (!at || !inside(at)) return nothing;
    const chosen = place.rank === this.chosen;
    return svg`<g class=${chosen ? 'pin chosen' : 'pin'} transform="translate(${at[0]},${at[1]}) scale(${this.unit})">
      <circle r=${chosen ? 11 : 9}></circle><text>${place.rank}</text></g>`;
  }

  private photoMark(projection: GeoProjection) {
    const at = this.photo && projection([this.photo.lon, this.photo.lat]);
    if (!at || !inside(at)) return nothing;
    const size = PHOTO_MARK_PX;
    return svg`<path class="photo" transform="translate(${at[0]},${at[1]}) scale(${this.unit})" d="M0,${-size}L${size},0L0,${size}L${-size},0Z"></path>`;
  }

  private zoomBy(factor: number): void {
    const zoom = Math.min(MAX_ZOOM, Math.max(1, this.view.zoom * factor));
    this.view = zoom === 1 ? WHOLE : { ...this.view, zoom };
  }

  private moveBy(dx: number, dy: number): void {
    const { zoom } = this.view;
    if (zoom === 1) return;
    const degrees = 360 / (WIDTH * zoom * 0.97);
    const lat = Math.min(85, Math.max(-85, this.view.lat + dy * degrees));
    const lon = ((this.view.lon - dx * degrees + 540) % 360) - 180;
    this.view = { lat, lon, zoom };
  }

  private onKey(event: KeyboardEvent): void {
    const step = 40;
    const moves: Record<string, () => void> = {
      ArrowLeft: () => this.moveBy(step, 0),
      ArrowRight: () => this.moveBy(-step, 0),
      ArrowUp: () => this.moveBy(0, step),
      ArrowDown: () => this.moveBy(0, -step),
      '+': () => this.zoomBy(2),
      '-': () => this.zoomBy(0.5),
      Escape: () => this.reset(),
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move();
  }

  private onDown(event: PointerEvent): void {
    this.drag = { x: event.clientX, y: event.clientY };
    (event.currentTarget as Element).setPointerCapture(event.pointerId);
  }

  private onMove(event: PointerEvent): void {
    if (!this.drag) return;
    const scale = WIDTH / (event.currentTarget as Element).clientWidth;
    this.moveBy((event.clientX - this.drag.x) * scale, (event.clientY - this.drag.y) * scale);
    this.drag = { x: event.clientX, y: event.clientY };
  }

  private onUp(): void {
    this.drag = null;
  }

  /** The page keeps its scroll wheel; with Ctrl, as maps in pages do, it zooms. */
  private onWheel(event: WheelEvent): void {
    if (!event.ctrlKey) return;
    event.preventDefault();
    this.zoomBy(event.deltaY < 0 ? 1.25 : 0.8);
  }
}

function inside([x, y]: [number, number]): boolean {
  return x >= 0 && x <= WIDTH && y >= 0 && y <= HEIGHT;
}

declare global {
  interface HTMLElementTagNameMap {
    'globe-map': GlobeMap;
  }
}
