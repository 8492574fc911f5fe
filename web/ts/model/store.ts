// Where pieces of model files are kept: OPFS, else the Cache API, else memory.

import { GlobeError, asGlobeError } from '../errors.js';

/** Files are fetched, checked and kept in pieces of this many bytes. */
export const PIECE_BYTES = 4 << 20;

/** A model that the browser refuses to store is held in memory up to this size, and is gone with the tab. */
export const MAX_UNSTORED_BYTES = 1 << 30;

/** Why a model that is not stored cannot be held in memory either; null if it can. */
export function memoryFault(bytes: number): GlobeError | null {
  if (bytes <= MAX_UNSTORED_BYTES) return null;
  return new GlobeError('Quota', `the model has ${megabytes(bytes)}; what is not stored is held in memory, up to ${megabytes(MAX_UNSTORED_BYTES)}`);
}

export const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;

/** Whether this browser keeps anything at all; the quota is another question. */
export async function canStore(): Promise<boolean> {
  const opened = async (open: () => Promise<unknown> | undefined) => (await open()) !== undefined;
  return (await opened(() => navigator.storage?.getDirectory?.()).catch(() => false)) || opened(() => caches.open(ROOT)).catch(() => false);
}

/** What is known of a file; it counts as present only when complete. */
export interface FileRecord {
  size: number;
  /** SHA-256 of each piece that has arrived, in order. */
  pieces: string[];
  /** Set once the whole file matched its digest. */
  complete: boolean;
}

/** Keeps pieces of files by the digest of the file, and small texts by name. */
export interface Store {
  readonly kind: 'opfs' | 'cache' | 'memory';
  /** A writer of consecutive pieces; closed by the caller. */
  writer(key: string): Promise<Writer>;
  read(key: string, start: number, end: number): Promise<Uint8Array>;
  delete(key: string): Promise<void>;
  text(name: string): Promise<string | null>;
  setText(name: string, text: string | null): Promise<void>;
  texts(prefix: string): Promise<string[]>;
}

export interface Writer {
  write(piece: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  close(): Promise<void>;
}

const ROOT = 'globe-models';

/** Attempts to open a file for writing, and the time between them. */
const [OPEN_ATTEMPTS, OPEN_AGAIN_MS] = [20, 100];

/** The best store that this browser grants. */
export async function openStore(persistent: boolean): Promise<Store> {
  if (!persistent) return new MemoryStore();
  try {
    return await OpfsStore.open();
  } catch {
    // Private windows and some embedders refuse OPFS.
  }
  try {
    return new CacheStore(await caches.open(ROOT));
  } catch {
    return new MemoryStore();
  }
}

export async function record(store: Store, key: string): Promise<FileRecord | null> {
  return parsed<FileRecord>(await store.text(`file-${key}`));
}

/** A text that was cut off while it was written counts as absent. */
export function parsed<T>(text: string | null): T | null {
  try {
    return text === null ? null : (JSON.parse(text) as T);
  } catch {
    return null;
  }
}

export function setRecord(store: Store, key: string, value: FileRecord | null): Promise<void> {
  return store.setText(`file-${key}`, value && JSON.stringify(value));
}

class OpfsStore implements Store {
  readonly kind = 'opfs';
  private readonly snapshots = new Map<string, File>();
  private constructor(private readonly folder: FileSystemDirectoryHandle) {}

  static async open(): Promise<OpfsStore> {
    const root = await navigator.storage.getDirectory();
    const store = new OpfsStore(await root.getDirectoryHandle(ROOT, { create: true }));
    await store.setText('probe', 'ok'); // some browsers fail only when written to
    return store;
  }

  async writer(key: string): Promise<Writer> {
    this.snapshots.delete(key);
    const file = await this.folder.getFileHandle(key, { create: true });
    const handle = await exclusive(file);
    return {
      async write(piece, bytes) {
        const written = handle.write(bytes, { at: piece * PIECE_BYTES });
        if (written !== bytes.length) throw asGlobeError({ name: 'QuotaExceededError' });
      },
      async close() {
        handle.flush();
        handle.close();
      },
    };
  }

  async read(key: string, start: number, end: number): Promise<Uint8Array> {
    let file = this.snapshots.get(key);
    if (!file) {
      file = await (await this.folder.getFileHandle(key)).getFile();
      this.snapshots.set(key, file);
    }
    return new Uint8Array(await file.slice(start, end).arrayBuffer());
  }

  async delete(key: string): Promise<void> {
    this.snapshots.delete(key);
    await absent(this.folder.removeEntry(key));
  }

  text(name: string): Promise<string | null> {
    return textLock('shared', async () => {
      const handle = await absent(this.folder.getFileHandle(`${name}.json`));
      return handle ? (await handle.getFile()).text() : null;
    });
  }

  setText(name: string, text: string | null): Promise<void> {
    return textLock('exclusive', () => this.writeText(name, text));
  }

  private async writeText(name: string, text: string | null): Promise<void> {
    if (text === null) {
      await absent(this.folder.removeEntry(`${name}.json`));
      return;
    }
    const handle = await this.folder.getFileHandle(`${name}.json`, { create: true });
    const file = await exclusive(handle);
    try {
      const bytes = new TextEncoder().encode(text);
      file.truncate(0);
      if (file.write(bytes, { at: 0 }) !== bytes.length) throw asGlobeError({ name: 'QuotaExceededError' });
      file.flush();
    } finally {
      file.close();
    }
  }

  async texts(prefix: string): Promise<string[]> {
    const names: string[] = [];
    for await (const name of this.folder.keys()) {
      if (name.startsWith(prefix) && name.endsWith('.json')) names.push(name.slice(0, -5));
    }
    return names.sort();
  }
}

/** A worker that was ended keeps its handles for a moment: what is still open is asked for again. */
async function exclusive(file: FileSystemFileHandle): Promise<FileSystemSyncAccessHandle> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await file.createSyncAccessHandle();
    } catch (error) {
      if ((error as Error).name !== 'NoModificationAllowedError' || attempt === OPEN_ATTEMPTS) throw error;
      await new Promise((done) => setTimeout(done, OPEN_AGAIN_MS));
    }
  }
}

/** Another tab may write the same small file: a reader waits for it. */
function textLock<T>(mode: LockMode, work: () => Promise<T>): Promise<T> {
  return navigator.locks ? (navigator.locks.request('globe-texts', { mode }, work) as Promise<T>) : work();
}

/** What is not there is null, not an error. */
async function absent<T>(promise: Promise<T>): Promise<T | null> {
  try {
    return await promise;
  } catch (error) {
    if ((error as Error).name === 'NotFoundError') return null;
    throw error;
  }
}

class CacheStore implements Store {
  readonly kind = 'cache';
  constructor(private readonly cache: Cache) {}

  private url(path: string): string {
    return new URL(`/${ROOT}/${path}`, location.origin).href;
  }

  async writer(key: string): Promise<Writer> {
    return {
      write: (piece, bytes) => this.cache.put(this.url(`${key}/${piece}`), new Response(bytes)),
      close: async () => undefined,
    };
  }

  async read(key: string, start: number, end: number): Promise<Uint8Array> {
    const piece = Math.floor(start / PIECE_BYTES);
    const response = await this.cache.match(this.url(`${key}/${piece}`));
    const bytes = response ? new Uint8Array(await response.arrayBuffer()) : new Uint8Array();
    return bytes.subarray(start - piece * PIECE_BYTES, end - piece * PIECE_BYTES);
  }

  async delete(key: string): Promise<void> {
    for (const request of await this.cache.keys()) {
      if (request.url.startsWith(this.url(`${key}/`))) await this.cache.delete(request);
    }
  }

  async text(name: string): Promise<string | null> {
    return (await (await this.cache.match(this.url(`text/${name}`)))?.text()) ?? null;
  }

  async setText(name: string, text: string | null): Promise<void> {
    const url = this.url(`text/${name}`);
    if (text === null) await this.cache.delete(url);
    else await this.cache.put(url, new Response(text));
  }

  async texts(prefix: string): Promise<string[]> {
    const start = this.url('text/');
    const names = (await this.cache.keys()).map((request) => request.url.slice(start.length));
    return names.filter((name) => name.startsWith(prefix)).sort();
  }
}

class MemoryStore implements Store {
  readonly kind = 'memory';
  private readonly pieces = new Map<string, Uint8Array>();
  private readonly named = new Map<string, string>();

  async writer(key: string): Promise<Writer> {
    return {
      write: async (piece, bytes) => void this.pieces.set(`${key}/${piece}`, bytes.slice()),
      close: async () => undefined,
    };
  }

  async read(key: string, start: number, end: number): Promise<Uint8Array> {
    const piece = Math.floor(start / PIECE_BYTES);
    const bytes = this.pieces.get(`${key}/${piece}`);
    if (!bytes) throw new GlobeError('Engine', `piece ${piece} of ${key} is not in memory`);
    return bytes.slice(start - piece * PIECE_BYTES, end - piece * PIECE_BYTES);
  }

  async delete(key: string): Promise<void> {
    for (const name of this.pieces.keys()) if (name.startsWith(`${key}/`)) this.pieces.delete(name);
  }

  async text(name: string): Promise<string | null> {
    return this.named.get(name) ?? null;
  }

  async setText(name: string, text: string | null): Promise<void> {
    if (text === null) this.named.delete(name);
    else this.named.set(name, text);
  }

  async texts(prefix: string): Promise<string[]> {
    return [...this.named.keys()].filter((name) => name.startsWith(prefix)).sort();
  }
}
