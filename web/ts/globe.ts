// The page's side: one worker per loaded model, calls with abort, one rebuild after a lost device.

import { GlobeError, asGlobeError, secureOnly, stopIf, stopped, unlessStopped } from './errors.js';
import type { CallName, Calls, FromWorker, LoadArgs } from './messages.js';
import { folderUrl, gazetteerUrl, newWorker, wasmUrl } from './urls.js';
import { ofOneFolder } from './model/folder.js';
import { probe, type Probe } from './probe.js';
import { Furthest, RESTARTS, STALL_MS, Watch } from './watch.js';
import type {
  DeviceChoice, LocateEvent, LocateOptions, LocateResult, Logits, MemoryUse, ModelInfo, ModelSource, PhotoInfo,
  Precision, Progress, StoredModel, Verification,
} from './types.js';

/** Options of [`Globe.load`]. */
export interface LoadOptions {
  /** Folder of the model on a server. */
  url?: string;
  /** Files of a model folder that the visitor chose. */
  files?: File[];
  device?: DeviceChoice;
  /** False leaves subgroups of the graphics processor alone, should their kernels fail somewhere. */
  subgroups?: boolean;
  /** False keeps nothing after the tab is closed. */
  cache?: boolean;
  /** False ends the load before the kernels are compiled: that goes on behind it, and the first photo waits for the rest. */
  warm?: boolean;
  /** A load that stands still for so long is begun anew where it stopped, and a call that goes on for so long after it was stopped is given up, ms: 30,000 without it. */
  stallMs?: number;
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/** Options of [`Globe.locate`]. */
export interface LocateCall extends LocateOptions {
  signal?: AbortSignal;
  /** Text of an answer as it appears, with the number of the answer. */
  onToken?: (text: string, sample: number) => void;
  /** Every step, tokens included. */
  onEvent?: (event: LocateEvent) => void;
}

/** An image: a file, or the bytes of one. */
export type ImageInput = Blob | ArrayBuffer | Uint8Array;

/** A worker is given this long to stop by itself, ms: on the CPU path it cannot hear a message. */
const GRACE_MS = 1500;

interface Pending {
  resolve(value: unknown): void;
  reject(error: GlobeError): void;
  onEvent?: (event: never) => void;
}

/** One worker and the calls that wait for it. */
class Link {
  private readonly worker = started();
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  private ended: GlobeError | null = null;
  /** Said by the worker: it computes no more. */
  private spent = false;
  private watch: Watch | null = null;

  constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.receive(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.end(new GlobeError('Engine', `the worker failed: ${event.message || 'its script could not be loaded'}`));
    };
  }

  get alive(): boolean {
    return this.ended === null && !this.spent;
  }

  /** Fails what waits for the worker; what it still computes is not wanted. */
  abandon(reason: GlobeError): void {
    for (const pending of this.pending.values()) pending.reject(reason);
    this.pending.clear();
  }

  /** Ends the worker when it has given the adapter's memory back, which some browsers do late for one that just ends. */
  async retire(reason: GlobeError): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const graceEnded = new Promise((done) => (timer = setTimeout(done, GRACE_MS)));
    await Promise.race([this.call('dispose', null).catch(() => undefined), graceEnded]);
    clearTimeout(timer);
    this.end(reason);
  }

  call<N extends CallName>(
    call: N,
    args: Calls[N]['args'],
    options: { signal?: AbortSignal; transfer?: Transferable[]; onEvent?: (event: Calls[N]['event']) => void } = {},
  ): Promise<Calls[N]['result']> {
    const { signal, transfer = [], onEvent } = options;
    if (this.ended) return Promise.reject(this.ended);
    if (signal?.aborted) return Promise.reject(stopped());
    const id = this.nextId++;
    return new Promise<unknown>((resolve, reject) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const stop = () => {
        this.worker.postMessage({ id, abort: true });
        timer = setTimeout(() => this.end(new GlobeError('DeviceLost', 'the worker was ended with a call that was stopped; try again'), id), GRACE_MS);
      };
      const settle = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', stop);
      };
      this.pending.set(id, {
        // What was finished before the worker heard of the stop is not wanted either.
        resolve: (value) => (settle(), signal?.aborted ? reject(stopped()) : resolve(value)),
        reject: (error) => (settle(), reject(error)),
        onEvent: onEvent as Pending['onEvent'],
      });
      signal?.addEventListener('abort', stop, { once: true });
      this.worker.postMessage({ id, call, args }, transfer);
    }) as Promise<Calls[N]['result']>;
  }

  /** Ends the worker if it stands still for `limitMs` before `work` is done. */
  async watched<T>(limitMs: number, work: Promise<T>): Promise<T> {
    const watch = (this.watch = new Watch(() => this.worker.postMessage({ beat: true }), limitMs, (reason) => this.end(reason)));
    try {
      return await work;
    } finally {
      watch.end();
      this.watch = null;
    }
  }

  private receive(message: FromWorker): void {
    if ('lost' in message) return; // the running call, or the next one, fails with it
    if ('beat' in message) {
      this.watch?.heard(message.beat);
      return;
    }
    const pending = this.pending.get(message.id);
    if (!pending) return;
    if ('event' in message) {
      pending.onEvent?.(message.event as never);
      return;
    }
    this.pending.delete(message.id);
    if ('error' in message) {
      const { code, message: words } = message.error;
      // It waited behind the call that broke the worker, so another worker may answer it.
      const unbegun = this.spent && (code === 'DoesNotFit' || code === 'Engine');
      this.spent ||= message.spent;
      pending.reject(unbegun ? new GlobeError('DeviceLost', words) : asGlobeError(message.error));
    } else pending.resolve(message.result);
  }

  /** Ends the worker; what waits for it fails with `reason`, the call that was stopped as such. */
  end(reason: GlobeError, stoppedId?: number): void {
    if (this.ended) return;
    this.ended = reason;
    this.worker.terminate();
    if (stoppedId !== undefined) this.pending.get(stoppedId)?.reject(stopped());
    this.abandon(reason);
  }
}

/** A browser starts workers of the page's own origin alone. */
function started(): Worker {
  try {
    return newWorker();
  } catch (thrown) {
    throw new GlobeError('Engine', `the worker cannot be started: ${(thrown as Error).message}; serve the package from the page's own origin`);
  }
}

/** A loaded model. */
export class Globe {
  private disposed = false;
  /** While the model is loaded once more: whoever needs it waits for the same load. */
  private rebuilding: Promise<void> | null = null;
  /** Ends that load with the model. */
  private readonly ending = new AbortController();

  private constructor(private link: Link, private readonly reopen: (signal: AbortSignal) => Promise<Opened>, private current: ModelInfo) {}

  /** What this browser can run, before anything is downloaded but the manifest. */
  static probe(url?: string, { device = 'auto', cache = true }: Pick<LoadOptions, 'device' | 'cache'> = {}): Promise<Probe> {
    const kept = async () => (await Globe.stored()).find((model) => model.url === folderUrl(url ?? '')) ?? null;
    return probe(url, { device, cache, kept });
  }

  /** Loads a model; an abort at any stage leaves nothing behind but what is stored and verified. */
  static async load(options: string | LoadOptions): Promise<Globe> {
    const { url, files, device = 'auto', subgroups = true, cache = true, warm = true, stallMs = STALL_MS, signal, onProgress } = typeof options === 'string' ? { url: options } as LoadOptions : options;
    stopIf(signal);
    secureOnly();
    if ((url === undefined) === (files === undefined)) throw new GlobeError('Option', 'pass either url or files');
    if (!(stallMs > 0)) throw new GlobeError('Option', `stallMs is ${stallMs}; it must be above 0`);
    const source: ModelSource = files ? { files: ofOneFolder([...files]) } : { url: folderUrl(url ?? '') };
    const args: LoadArgs = { source, wasmUrl: wasmUrl(), gazetteerUrl: gazetteerUrl(), device, subgroups, cache, warm, stallMs };
    const { link, info } = await open(args, signal, onProgress);
    // The visitor was told that it stays until it is deleted; a browser that says no may clear it when space is short.
    if (info.storage === 'opfs' || info.storage === 'cache') void navigator.storage?.persist?.().catch(() => false);
    return new Globe(link, (ended) => open(args, ended), info);
  }

  /** Models that this browser keeps. */
  static stored(): Promise<StoredModel[]> {
    return once((link) => link.call('stored', null));
  }

  /** Compares every byte of a stored model with its digests; what differs is deleted. */
  static verify(url: string, options: { signal?: AbortSignal; onProgress?: (progress: Progress) => void } = {}): Promise<Verification> {
    const { signal, onProgress } = options;
    return once((link) => link.call('verify', { url: folderUrl(url), wasmUrl: wasmUrl() }, { signal, onEvent: onProgress }));
  }

  /** Deletes a stored model. */
  static async remove(url: string): Promise<void> {
    await once((link) => link.call('remove', { url: folderUrl(url) }));
  }

  /** The model at hand. */
  get info(): ModelInfo {
    return this.current;
  }

  /** Where a photo may have been taken. */
  async locate(image: ImageInput, call: LocateCall = {}): Promise<LocateResult> {
    const { signal, onToken, onEvent, ...options } = call;
    const hear = (event: LocateEvent) => {
      onEvent?.(event);
      if (event.kind === 'tokens') onToken?.(event.text, event.sample);
    };
    return this.withDevice(async (link) => {
      const bytes = await copy(image);
      return link.call('locate', { image: bytes, options }, { signal, transfer: [bytes], onEvent: hear });
    }, signal);
  }

  /** Size, format and EXIF position of an image file; the model does not see it. */
  async inspect(image: ImageInput): Promise<PhotoInfo> {
    return this.withDevice(async (link) => {
      const bytes = await copy(image);
      return link.call('inspect', { image: bytes }, { transfer: [bytes] });
    });
  }

  /** The last result at another precision, without a second run; null before the first. */
  async rounded(precision: Precision): Promise<LocateResult | null> {
    return this.open().call('rounded', { precision });
  }

  /** Logits and greedy tokens of a prompt, to compare with `globe logits --json`. */
  async logits(images: ImageInput[], prompt: string, tokens: number, system: string | null = null): Promise<Logits> {
    return this.withDevice(async (link) => {
      const copies = await Promise.all(images.map(copy));
      return link.call('logits', { images: copies, prompt, system, tokens }, { transfer: copies });
    });
  }

  /** Forgets the last result and what was computed of the photos, which another question about one of them would reuse. */
  async forget(): Promise<void> {
    await this.open().call('forget', null);
  }

  /** What the model holds at the moment, and what it held at most. */
  async memory(): Promise<MemoryUse> {
    return this.open().call('memory', null);
  }

  /** Ends the worker and gives all memory back. Always safe; running calls fail with `Aborted`. */
  dispose(): void {
    this.disposed = true;
    this.ending.abort();
    const link = this.link;
    const reason = new GlobeError('Aborted', 'the model was disposed of');
    link.abandon(reason);
    void link.retire(reason);
  }

  private open(): Link {
    if (this.disposed) throw new GlobeError('Aborted', 'the model was disposed of');
    return this.link;
  }

  /** Runs `work`; after a lost device or a worker that had to be ended, the model is loaded once more. */
  private async withDevice<T>(work: (link: Link) => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (!this.open().alive) await this.rebuild(this.link, signal);
    const link = this.open();
    try {
      return await work(link);
    } catch (thrown) {
      const error = asGlobeError(thrown);
      if (error.code !== 'DeviceLost' || this.disposed) throw error;
    }
    await this.rebuild(link, signal);
    return work(this.open());
  }

  /** Puts another worker in the place of `lost`, unless somebody did. Who stops does not wait; the load goes on for the next call. */
  private async rebuild(lost: Link, signal?: AbortSignal): Promise<void> {
    if (this.link !== lost) return;
    this.rebuilding ??= this.replace(lost).finally(() => (this.rebuilding = null));
    await unlessStopped(signal, this.rebuilding);
  }

  private async replace(lost: Link): Promise<void> {
    await lost.retire(new GlobeError('DeviceLost', 'the graphics processor stopped'));
    const { link, info } = await this.reopen(this.ending.signal);
    if (this.disposed) {
      link.end(new GlobeError('Aborted', 'the model was disposed of'));
      this.open();
    }
    this.link = link;
    this.current = info;
  }
}

interface Opened {
  link: Link;
  info: ModelInfo;
}

/** A worker with the model; one that stands still gives way to another, which goes on with what is stored. */
async function open(args: LoadArgs, signal?: AbortSignal, onProgress?: (progress: Progress) => void): Promise<Opened> {
  const furthest = new Furthest();
  const onEvent = (progress: Progress) => {
    furthest.note(progress);
    onProgress?.(progress);
  };
  for (let restarts = 0; ; restarts++) {
    const link = new Link();
    try {
      const info = await link.watched(args.stallMs, link.call('load', args, { signal, onEvent }));
      return { link, info };
    } catch (thrown) {
      const error = asGlobeError(thrown);
      link.end(error);
      if (furthest.grew()) restarts = 0;
      if (error.code !== 'Stalled' || restarts === RESTARTS) throw error;
    }
  }
}

/** A worker for one short call. */
async function once<T>(work: (link: Link) => Promise<T>): Promise<T> {
  const link = new Link();
  try {
    return await work(link);
  } finally {
    link.end(new GlobeError('Aborted', 'done'));
  }
}

/** The worker takes its own copy, so that the caller keeps theirs. */
async function copy(image: ImageInput): Promise<ArrayBuffer> {
  if (image instanceof Blob) {
    return image.arrayBuffer().catch((error: Error) => {
      throw new GlobeError('Image', `the photo cannot be read any more (${error.message}); choose it again`);
    });
  }
  return image instanceof Uint8Array ? (image.slice().buffer as ArrayBuffer) : image.slice(0);
}
