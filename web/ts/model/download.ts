// One file of a model into the store: resumed, retried, hashed on the way.

import { GlobeError, asGlobeError, stopIf } from '../errors.js';
import { SEALED } from '../sealed.js';
import type { Entry, StoredEntry } from './manifest.js';
import { PIECE_BYTES, record, setRecord, type FileRecord, type Store } from './store.js';

/** A running SHA-256, by the wasm module: the browser's own needs all bytes at once. */
export interface Hasher {
  update(bytes: Uint8Array): void;
  digest(): string;
  free(): void;
}

export interface DownloadContext {
  store: Store;
  hasher: () => Hasher;
  signal: AbortSignal;
  /** Bytes that became present: from the store (`verify`) or the network (`fetch`). */
  onBytes: (stage: 'fetch' | 'verify', bytes: number) => void;
  /** Bytes moved at all, here or in the tab that is waited for. */
  onMoved: () => void;
}

/** Waits between attempts after a cut connection, ms. */
const RETRY_MS = [300, 1000, 3000];

/** How often what another tab has stored is looked at, ms. */
const OTHER_TAB_MS = 1000;

/** Held by the tab that fetches the file. */
export const fileLock = ({ sha256 }: StoredEntry) => `globe-${sha256}`;

/** Makes `entry` present in the store; two tabs never fetch the same file at once. `first` is done while no other tab does. */
export async function ensure(url: string, entry: Entry, context: DownloadContext, first?: () => Promise<void>): Promise<void> {
  const present = first ? null : await record(context.store, entry.sha256);
  if (present?.complete && present.size === entry.size) {
    context.onBytes('fetch', entry.size);
    return;
  }
  const granted = watchOther(entry, context);
  await locked(fileLock(entry), context.signal, async () => {
    granted();
    await first?.();
    const again = await record(context.store, entry.sha256);
    if (again?.complete && again.size === entry.size) context.onBytes('fetch', entry.size);
    else await fetchVerified(url, entry, context);
  });
}

/** While another tab fetches the file, the pieces that it stores are what moves here. Ended by the returned function. */
function watchOther({ sha256 }: Entry, { store, signal, onMoved }: DownloadContext): () => void {
  let pieces = 0;
  const look = async () => {
    const now = (await record(store, sha256))?.pieces.length ?? 0;
    if (now !== pieces) onMoved();
    pieces = now;
  };
  const timer = setInterval(() => void look().catch(() => undefined), OTHER_TAB_MS);
  const end = () => clearInterval(timer);
  signal.addEventListener('abort', end, { once: true });
  return end;
}

async function locked(name: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  if (!navigator.locks) return work();
  await navigator.locks.request(name, { signal }, work);
}

/** Fetches until the digest matches, starting over once if it does not. */
async function fetchVerified(url: string, entry: Entry, context: DownloadContext): Promise<void> {
  for (let attempt = 0; attempt < 2; attempt++) {
    let counted = 0;
    const onBytes = (stage: 'fetch' | 'verify', bytes: number) => {
      counted += bytes;
      context.onBytes(stage, bytes);
    };
    const digest = await new Download(url, entry, { ...context, onBytes }).run();
    if (digest === entry.sha256) return;
    await context.store.delete(entry.sha256);
    await setRecord(context.store, entry.sha256, null);
    context.onBytes('fetch', -counted);
  }
  throw new GlobeError('Integrity', `${entry.name} differs from its digest, twice; the copy on the server is damaged`);
}

class Download {
  private state: FileRecord;
  private readonly hash: Hasher;
  private readonly piece = new Uint8Array(PIECE_BYTES);
  private filled = 0;

  constructor(private readonly url: string, private readonly entry: Entry, private readonly context: DownloadContext) {
    this.state = { size: entry.size, pieces: [], complete: false };
    this.hash = context.hasher();
  }

  private get received(): number {
    return Math.min(this.state.pieces.length * PIECE_BYTES, this.entry.size);
  }

  /** The digest of the whole file; the record is complete only if it is the right one. */
  async run(): Promise<string> {
    const { store } = this.context;
    await this.resume();
    const writer = await store.writer(this.entry.sha256);
    try {
      await this.attempts((piece, bytes) => writer.write(piece, bytes));
    } catch (error) {
      throw asGlobeError(error);
    } finally {
      await writer.close();
    }
    const digest = this.hash.digest();
    this.hash.free();
    if (digest === this.entry.sha256) {
      await setRecord(store, this.entry.sha256, { ...this.state, complete: true });
    }
    return digest;
  }

  /** Takes over what an earlier visit left, as far as it is still what was written. */
  private async resume(): Promise<void> {
    const { store, signal, onBytes, onMoved } = this.context;
    const left = await record(store, this.entry.sha256);
    if (!left || left.size !== this.entry.size) return;
    for (const [index, expected] of left.pieces.entries()) {
      stopIf(signal);
      const start = index * PIECE_BYTES;
      const end = Math.min(start + PIECE_BYTES, this.entry.size);
      const bytes = await store.read(this.entry.sha256, start, end).catch(() => new Uint8Array());
      if (bytes.length !== end - start || (await digestOf(bytes)) !== expected) break;
      this.hash.update(bytes);
      this.state.pieces.push(expected);
      onMoved();
      onBytes('verify', bytes.length);
    }
  }

  private async attempts(write: (piece: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>): Promise<void> {
    for (let attempt = 0; this.received < this.entry.size; attempt++) {
      const before = this.received;
      const cut = await this.stream(write);
      if (this.received >= this.entry.size) return;
      if (this.received > before) attempt = 0;
      const wait = RETRY_MS[attempt];
      if (wait === undefined) throw cut;
      await sleep(wait, this.context.signal);
    }
  }

  /** Reads until the file is whole or the connection is cut; what cut it is returned. */
  private async stream(write: (piece: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>): Promise<GlobeError> {
    const { signal } = this.context;
    const start = this.received;
    this.filled = 0;
    let response: Response;
    try {
      const headers: HeadersInit = start > 0 ? [['Range', `bytes=${start}-`]] : [];
      response = await fetch(this.url, { headers, signal, cache: 'no-store' });
    } catch (error) {
      return this.cut(error);
    }
    const fault = faultOf(this.entry.name, response);
    if (response.status >= 500 && fault) return fault;
    if (fault) throw fault;
    // A server without Range sends all of it again: what is already here is skipped.
    let skip = response.status === 206 ? 0 : start;
    const reader = response.body?.getReader();
    if (!reader) throw network(this.entry.name, 'the answer is empty');
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.context.onMoved();
        const from = Math.min(skip, value.length);
        skip -= from;
        await this.take(value.subarray(from), write);
      }
    } catch (error) {
      if (error instanceof GlobeError || (error as Error).name === 'QuotaExceededError') throw error;
      return this.cut(error);
    }
    return network(this.entry.name, `it ended after ${this.received + this.filled} of ${this.entry.size} bytes`);
  }

  private cut(error: unknown): GlobeError {
    stopIf(this.context.signal);
    if (!navigator.onLine) return network(this.entry.name, 'this device is offline');
    return network(this.entry.name, `the connection failed, or the server does not allow this page (CORS): ${(error as Error).message}`);
  }

  private async take(bytes: Uint8Array, write: (piece: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>): Promise<void> {
    while (bytes.length > 0) {
      const left = Math.min(PIECE_BYTES, this.entry.size - this.received);
      if (left === 0) throw new GlobeError('Integrity', `${this.entry.name} is longer than its manifest says`);
      const part = bytes.subarray(0, left - this.filled);
      this.piece.set(part, this.filled);
      this.filled += part.length;
      bytes = bytes.subarray(part.length);
      this.context.onBytes('fetch', part.length);
      if (this.filled === left) await this.flush(left, write);
    }
  }

  private async flush(length: number, write: (piece: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>): Promise<void> {
    stopIf(this.context.signal);
    const bytes = this.piece.subarray(0, length);
    this.hash.update(bytes);
    const digest = await digestOf(bytes);
    await write(this.state.pieces.length, bytes);
    this.state.pieces.push(digest);
    this.filled = 0;
    await setRecord(this.context.store, this.entry.sha256, this.state);
  }
}

/** SHA-256 of bytes at hand, in lower-case hexadecimal. */
export async function digestOf(bytes: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The same of a text. */
export const digestOfText = (text: string) => digestOf(new TextEncoder().encode(text));

/** The body of an answer; `onBytes` hears of each part as it arrives. */
export async function bodyOf(response: Response, onBytes: (bytes: number) => void): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  const reader = response.body?.getReader();
  for (let part = await reader?.read(); part?.value; part = await reader?.read()) {
    onBytes(part.value.length);
    size += part.value.length;
    parts.push(part.value);
  }
  const bytes = new Uint8Array(size);
  for (const part of parts.reverse()) bytes.set(part, (size -= part.length));
  return bytes;
}

/** Why an answer is not the file; null if it is. */
function faultOf(name: string, response: Response): GlobeError | null {
  if (response.ok) return null;
  const sealed = response.headers.has(SEALED);
  return network(name, sealed ? 'a tab of this site is sealed, which lets no request out; unseal or close it, and try again' : `the server answered ${response.status}`);
}

/** Throws unless an answer is the file. */
export function expectFile(name: string, response: Response): void {
  const fault = faultOf(name, response);
  if (fault) throw fault;
}

export function network(name: string, reason: string): GlobeError {
  return new GlobeError('Network', `${name} did not arrive: ${reason}`);
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new GlobeError('Aborted', 'stopped'));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal.addEventListener('abort', stop, { once: true });
  });
}
