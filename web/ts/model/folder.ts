// A model folder as the engine reads it: from the store, from chosen files, or straight from a server.

import { GlobeError, stopIf } from '../errors.js';
import { kernelList, type KernelList } from '../kernels.js';
import { bodyOf, digestOf, ensure, expectFile, fileLock, network, type DownloadContext, type Hasher } from './download.js';
import { MANIFESTS, parseManifest, widenedAtMost, type Entry, type Manifest } from './manifest.js';
import { PIECE_BYTES, megabytes, parsed, record, setRecord, type Store } from './store.js';
import type { StoredModel, Verification } from '../types.js';

/** Weights in the layout of Hugging Face: one file, or several with their list. */
const [WEIGHTS, WEIGHTS_INDEX] = ['model.safetensors', 'model.safetensors.index.json'];

/** What the wasm module reads from. */
export interface ModelFile {
  size: number;
  read(start: number, end: number): Promise<Uint8Array>;
}

export interface ModelFolder {
  open(name: string): Promise<ModelFile | null>;
}

/** The manifest of a folder on a server, or null if it has none. Offline, the copy kept from before. */
export async function fetchManifest(base: string, signal: AbortSignal, store?: Store): Promise<Manifest | null> {
  try {
    for (const name of MANIFESTS) {
      const text = await fetchText(base, name, signal);
      if (text !== null) return parseManifest(name, text);
    }
    return null;
  } catch (thrown) {
    const kept = (thrown as GlobeError).code === 'Network' && store ? await keptModel(store, await modelKey(base)) : null;
    if (!kept) throw thrown;
    return parseManifest(kept.manifest.name, kept.manifest.text);
  }
}

async function fetchText(base: string, name: string, signal: AbortSignal): Promise<string | null> {
  const response = await request(name, base + name, { signal, cache: 'no-cache' });
  if (response.status === 404 || isPage(response)) return null;
  expectFile(name, response);
  return arriving(name, signal, () => response.text());
}

/** Says that a folder without a manifest is no model either, where it is none. */
export async function expectModel(base: string, signal: AbortSignal): Promise<void> {
  const response = await request('config.json', `${base}config.json`, { method: 'HEAD', signal, cache: 'no-cache' });
  if (response.status === 404 || isPage(response)) throw new GlobeError('Model', `no model is at ${base}: it has neither a manifest nor a config.json; check the address`);
}

/** What a folder without a manifest takes as f32, as far as its weights say; 0 where they do not. */
export async function unlistedBytes(base: string, signal: AbortSignal): Promise<number> {
  const head = await request(WEIGHTS, base + WEIGHTS, { method: 'HEAD', signal });
  if (head.ok && !isPage(head)) return widenedAtMost(Number(head.headers.get('content-length') ?? 0));
  const index = await fetchText(base, WEIGHTS_INDEX, signal);
  const size = parsed<{ metadata?: { total_size?: unknown } }>(index)?.metadata?.total_size;
  return typeof size === 'number' ? widenedAtMost(size) : 0;
}

/** Some hosts answer every unknown path with their start page. */
function isPage(response: Response): boolean {
  return response.headers.get('content-type')?.includes('text/html') ?? false;
}

interface KeptModel {
  url: string;
  manifest: { name: string; text: string };
}

const addressKey = async (kind: 'model' | 'kernels', base: string) => `${kind}-${await digestOf(new TextEncoder().encode(base))}`;
const modelKey = (base: string) => addressKey('model', base);

async function keptModel(store: Store, key: string): Promise<KeptModel | null> {
  return parsed<KeptModel>(await store.text(key));
}

/** The kernels that a model needed before; none if that is not known. */
export async function keptKernels(store: Store, base: string): Promise<KernelList> {
  return kernelList(parsed<unknown>(await store.text(await addressKey('kernels', base))));
}

/** Keeps them beside the model, unless that was deleted meanwhile. */
export async function keepKernels(store: Store, base: string, kernels: KernelList): Promise<void> {
  if (await keptModel(store, await modelKey(base))) await store.setText(await addressKey('kernels', base), JSON.stringify(kernels));
}

/** Models of the store with their sizes. */
export async function storedModels(store: Store): Promise<StoredModel[]> {
  const models: StoredModel[] = [];
  for (const key of await store.texts('model-')) {
    const kept = await keptModel(store, key);
    if (!kept) continue;
    const manifest = parseManifest(kept.manifest.name, kept.manifest.text);
    const { widenedBytes, largestPart } = manifest;
    const records = await Promise.all(manifest.entries.map((entry) => record(store, entry.sha256)));
    const bytes = records.reduce((sum, r) => sum + (r ? Math.min(r.pieces.length * PIECE_BYTES, r.size) : 0), 0);
    models.push({ url: kept.url, bytes, complete: records.every((r) => r?.complete), widenedBytes, largestPart });
  }
  return models;
}

/** Deletes a model, except for files that another one shares. */
export async function removeModel(store: Store, base: string): Promise<void> {
  const key = await modelKey(base);
  const kept = await keptModel(store, key);
  if (!kept) return;
  const shared = new Set<string>();
  for (const other of await store.texts('model-')) {
    const model = other === key ? null : await keptModel(store, other);
    if (!model) continue;
    for (const entry of parseManifest(model.manifest.name, model.manifest.text).entries) shared.add(entry.sha256);
  }
  const own = parseManifest(kept.manifest.name, kept.manifest.text).entries.filter((entry) => !shared.has(entry.sha256));
  const held = (await navigator.locks?.query())?.held ?? [];
  if (held.some(({ name }) => own.some((entry) => name === fileLock(entry)))) {
    throw new GlobeError('Model', 'this model is being downloaded, here or in another tab; stop that first, or delete the model when it is done');
  }
  for (const entry of own) {
    await store.delete(entry.sha256);
    await setRecord(store, entry.sha256, null);
  }
  // Last, so that what could not be deleted stays on the list.
  await store.setText(await addressKey('kernels', base), null);
  await store.setText(key, null);
}

/** Compares a stored model with its digests; files that differ are deleted, so that the next load fetches them. */
export async function verifyModel(
  store: Store,
  base: string,
  hasher: () => Hasher,
  signal: AbortSignal,
  onBytes: (done: number, total: number, file: string) => void,
): Promise<Verification> {
  const kept = await keptModel(store, await modelKey(base));
  if (!kept) throw new GlobeError('Model', 'no model of this address is stored');
  const { entries, totalBytes } = parseManifest(kept.manifest.name, kept.manifest.text);
  const found: Verification = { bytes: 0, damaged: [], missing: [] };
  let done = 0;
  for (const { name, size, sha256 } of entries) {
    if (!(await record(store, sha256))?.complete) {
      found.missing.push(name);
      continue;
    }
    const hash = hasher();
    for (let start = 0; start < size; start += PIECE_BYTES) {
      stopIf(signal);
      const bytes = await store.read(sha256, start, Math.min(start + PIECE_BYTES, size)).catch(() => new Uint8Array());
      hash.update(bytes);
      onBytes((done += bytes.length), totalBytes, name);
    }
    const digest = hash.digest();
    hash.free();
    if (digest === sha256) {
      found.bytes += size;
      continue;
    }
    found.damaged.push(name);
    await setRecord(store, sha256, null);
    await store.delete(sha256);
  }
  return found;
}

/** Makes every file of a manifest present, and returns the folder of them. */
export async function storedFolder(base: string, manifest: Manifest, context: DownloadContext): Promise<ModelFolder> {
  const { store } = context;
  await room(manifest, store);
  const kept: KeptModel = { url: base, manifest: { name: manifest.name, text: manifest.text } };
  const enlist = async () => store.setText(await modelKey(base), JSON.stringify(kept));
  await enlist();
  for (const entry of manifest.entries) {
    stopIf(context.signal);
    await ensure(base + encodeURIComponent(entry.name), entry, context);
  }
  await enlist(); // between two files another tab may have deleted it
  const open = async (name: string): Promise<ModelFile | null> => {
    if (name === manifest.name) return textFile(manifest.text);
    const entry = manifest.entries.find((e) => e.name === name);
    return entry ? new StoredFile(base, entry, context, enlist) : null;
  };
  return { open };
}

/** Refuses early what the browser will refuse late. */
async function room(manifest: Manifest, store: Store): Promise<void> {
  if (store.kind === 'memory' || !navigator.storage?.estimate) return;
  let missing = 0;
  for (const entry of manifest.entries) {
    const present = await record(store, entry.sha256);
    missing += entry.size - Math.min((present?.pieces.length ?? 0) * PIECE_BYTES, entry.size);
  }
  const { quota = Infinity, usage = 0 } = await navigator.storage.estimate();
  if (missing > quota - usage) {
    throw new GlobeError('Quota', `the model needs ${megabytes(missing)} more, the browser grants ${megabytes(quota - usage)}; free some disk space, or delete another model`);
  }
}

function textFile(text: string): ModelFile {
  const bytes = new TextEncoder().encode(text);
  return { size: bytes.length, read: async (start, end) => bytes.slice(start, end) };
}

/** A file of the store; each piece is compared with its digest when it is first read. */
class StoredFile implements ModelFile {
  readonly size: number;
  private readonly checked = new Set<number>();
  private pieces: string[] | null = null;
  private refetched = false;

  constructor(private readonly base: string, private readonly entry: Entry, private readonly context: DownloadContext, private readonly enlist: () => Promise<void>) {
    this.size = entry.size;
  }

  async read(start: number, end: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(end - start);
    for (let at = start; at < end; ) {
      stopIf(this.context.signal);
      const piece = Math.floor(at / PIECE_BYTES);
      const stop = Math.min((piece + 1) * PIECE_BYTES, end);
      bytes.set(await this.part(piece, at, stop), at - start);
      at = stop;
    }
    return bytes;
  }

  private async part(piece: number, start: number, end: number): Promise<Uint8Array> {
    const { store, onMoved } = this.context;
    onMoved();
    if (this.checked.has(piece)) return store.read(this.entry.sha256, start, end);
    const first = piece * PIECE_BYTES;
    const last = Math.min(first + PIECE_BYTES, this.size);
    this.pieces ??= (await record(store, this.entry.sha256))?.pieces ?? [];
    const bytes = await store.read(this.entry.sha256, first, last).catch(() => new Uint8Array());
    if (bytes.length === last - first && (await digestOf(bytes)) === this.pieces[piece]) {
      this.checked.add(piece);
      return bytes.subarray(start - first, end - first);
    }
    await this.refetch();
    return this.part(piece, start, end);
  }

  /** A damaged entry is fetched again once. */
  private async refetch(): Promise<void> {
    const { name, sha256 } = this.entry;
    if (this.refetched) throw new GlobeError('Integrity', `${name} was damaged in storage, twice; the disk may be failing`);
    this.refetched = true;
    this.checked.clear();
    this.pieces = null;
    await setRecord(this.context.store, sha256, null);
    await this.context.store.delete(sha256);
    await ensure(this.base + encodeURIComponent(name), this.entry, this.context);
    await this.enlist(); // another tab may have deleted the model, and what is stored again must be deletable
  }
}

/** The manifest among chosen files, or null. */
export async function chosenManifest(files: File[]): Promise<Manifest | null> {
  for (const name of MANIFESTS) {
    const file = files.find((file) => file.name === name);
    if (file) return parseManifest(name, await file.text());
  }
  return null;
}

/** A folder of chosen files; with a manifest, every file is compared with its digest first. */
export async function chosenFolder(
  files: File[],
  { hasher, signal, onMoved }: Pick<DownloadContext, 'hasher' | 'signal' | 'onMoved'>,
  onBytes: (bytes: number, total: number, file: string) => void,
): Promise<{ folder: ModelFolder; bytes: number; verified: boolean }> {
  const byName = new Map(files.map((file) => [file.name, file]));
  const manifest = await chosenManifest(files);
  for (const entry of manifest?.entries ?? []) {
    const file = byName.get(entry.name);
    if (!file) throw new GlobeError('Model', `${entry.name} is missing among the chosen files; choose the whole folder`);
    await verify(file, entry, hasher(), signal, (bytes) => {
      onMoved();
      onBytes(bytes, manifest?.totalBytes ?? 0, entry.name);
    });
  }
  // Of a folder with a manifest only what was verified is read.
  const listed = manifest && new Set([manifest.name, ...manifest.entries.map((entry) => entry.name)]);
  const open = async (wanted: string): Promise<ModelFile | null> => {
    const file = byName.get(wanted);
    if (!file || (listed && !listed.has(wanted))) return null;
    const read = async (start: number, last: number) => {
      const end = Math.min(last, file.size);
      const bytes = new Uint8Array(end - start);
      for (let at = start; at < end; at += PIECE_BYTES) {
        stopIf(signal);
        bytes.set(new Uint8Array(await file.slice(at, Math.min(at + PIECE_BYTES, end)).arrayBuffer()), at - start);
        onMoved();
      }
      return bytes;
    };
    return { size: file.size, read };
  };
  const bytes = manifest?.totalBytes ?? files.reduce((sum, file) => sum + file.size, 0);
  return { folder: { open }, bytes, verified: manifest !== null };
}

async function verify(file: File, entry: Entry, hash: Hasher, signal: AbortSignal, onBytes: (bytes: number) => void): Promise<void> {
  if (file.size !== entry.size) throw new GlobeError('Integrity', `${entry.name} has ${file.size} bytes, its manifest says ${entry.size}; copy it again`);
  for (let start = 0; start < file.size; start += PIECE_BYTES) {
    stopIf(signal);
    const bytes = new Uint8Array(await file.slice(start, start + PIECE_BYTES).arrayBuffer());
    hash.update(bytes);
    onBytes(bytes.length);
  }
  const digest = hash.digest();
  hash.free();
  if (digest !== entry.sha256) throw new GlobeError('Integrity', `${entry.name} differs from its digest; copy it again`);
}

/** A plain folder on a server, without digests: read by ranges, kept nowhere. */
export function remoteFolder(base: string, signal: AbortSignal, onBytes: (bytes: number) => void): ModelFolder {
  const open = async (name: string): Promise<ModelFile | null> => {
    const url = base + encodeURIComponent(name);
    const head = await request(name, url, { method: 'HEAD', signal });
    if (head.status === 404 || isPage(head)) return null;
    expectFile(name, head);
    const size = Number(head.headers.get('content-length') ?? Number.NaN);
    if (!Number.isSafeInteger(size)) throw network(name, 'the server does not say how long it is');
    let whole: Uint8Array | null = null;
    const read = async (start: number, end: number): Promise<Uint8Array> => {
      if (start === end) return new Uint8Array();
      if (whole) return whole.slice(start, end);
      const response = await request(name, url, { headers: { Range: `bytes=${start}-${end - 1}` }, signal });
      expectFile(name, response);
      const bytes = await bodyOf(response, onBytes);
      if (response.status === 206) return bytes;
      whole = bytes; // a server without Range
      return bytes.slice(start, end);
    };
    return { size, read };
  };
  return { open };
}

const request = (name: string, url: string, init: RequestInit) => arriving(name, init.signal, () => fetch(url, init));

/** What a server sends, or why it does not arrive. */
async function arriving<T>(name: string, signal: AbortSignal | null | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if ((error as Error).name === 'TimeoutError') throw network(name, 'the server did not answer in time');
    stopIf(signal ?? undefined);
    const reason = navigator.onLine
      ? `the connection failed, or the server does not allow this page (CORS): ${(error as Error).message}`
      : 'this device is offline, and the model is not stored';
    throw network(name, reason);
  }
}
