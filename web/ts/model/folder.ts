// A model folder as the engine reads it: from the store, from chosen files, or straight from a server.

import { GlobeError, asGlobeError, stopIf } from '../errors.js';
import { kernelList, type KernelList } from '../kernels.js';
import { SEALED } from '../sealed.js';
import { bodyOf, digestOf, digestOfText, ensure, expectFile, fileLock, network, type DownloadContext, type Hasher } from './download.js';
import { MANIFESTS, parseManifest, storedEntries, type Entry, type Manifest, type StoredEntry } from './manifest.js';
import { PIECE_BYTES, megabytes, parsed, record, setRecord, type FileRecord, type Store } from './store.js';
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

/** Hosts that list no folders to strangers refuse what they do not have. */
const ABSENT = [403, 404, 410];

async function fetchText(base: string, name: string, signal: AbortSignal): Promise<string | null> {
  const response = await request(name, base + name, { signal, cache: 'no-cache' });
  if (isAbsent(response)) return null;
  expectFile(name, response);
  return arriving(name, signal, () => response.text());
}

/** Says that a folder without a manifest is no model either, where it is none. */
export async function expectModel(base: string, signal: AbortSignal): Promise<void> {
  const response = await request('config.json', `${base}config.json`, { method: 'HEAD', signal, cache: 'no-cache' });
  if (response.status === 404 || isPage(response)) throw new GlobeError('Model', `no model is at ${base}: it has neither a manifest nor a config.json; check the address`);
}

/** Bytes of the weights in a folder without a manifest, as far as they say; 0 where they do not. */
export async function unlistedBytes(base: string, signal: AbortSignal): Promise<number> {
  const head = await request(WEIGHTS, base + WEIGHTS, { method: 'HEAD', signal });
  if (head.ok && !isPage(head)) return Number(head.headers.get('content-length') ?? 0);
  const index = await fetchText(base, WEIGHTS_INDEX, signal);
  const size = parsed<{ metadata?: { total_size?: unknown } }>(index)?.metadata?.total_size;
  return typeof size === 'number' ? size : 0;
}

/** Some hosts answer every unknown path with their start page. */
function isPage(response: Response): boolean {
  return response.headers.get('content-type')?.includes('text/html') ?? false;
}

const isAbsent = (response: Response) => !response.headers.has(SEALED) && (ABSENT.includes(response.status) || isPage(response));

interface KeptManifest {
  name: string;
  text: string;
}

/** What is on the list of stored models. `next` is the manifest whose files are on their way, to take the place of the other one. */
interface KeptModel {
  url: string;
  manifest: KeptManifest;
  next?: KeptManifest;
}

const addressKey = async (kind: 'model' | 'kernels', base: string) => `${kind}-${await digestOfText(base)}`;
const modelKey = (base: string) => addressKey('model', base);

async function keptModel(store: Store, key: string): Promise<KeptModel | null> {
  return parsed<KeptModel>(await store.text(key));
}

/** Files of a kept model, also of one that only another version of this page can read. */
function filesOf({ manifest, next }: KeptModel): StoredEntry[] {
  return [manifest, ...(next ? [next] : [])].flatMap(({ text }) => storedEntries(text));
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
    const records = new Map<string, FileRecord | null>();
    for (const { sha256 } of filesOf(kept)) records.set(sha256, await record(store, sha256));
    const bytes = arrived(records.values());
    const manifest = readable(kept.manifest);
    const complete = manifest !== null && manifest.entries.every(({ sha256 }) => records.get(sha256)?.complete);
    models.push({ url: kept.url, bytes, complete, digest: await digestOfText(kept.manifest.text), widenedBytes: manifest?.widenedBytes ?? 0, largestPart: manifest?.largestPart ?? 0 });
  }
  return models;
}

/** One that another version of this page wrote is none here, and hides no other model. */
function readable({ name, text }: KeptManifest): Manifest | null {
  try {
    return parseManifest(name, text);
  } catch {
    return null;
  }
}

/** Files of `entries` that no model on the list has. */
async function unlisted(store: Store, entries: StoredEntry[], except?: string): Promise<StoredEntry[]> {
  const listed = new Set<string>();
  for (const key of await store.texts('model-')) {
    const model = key === except ? null : await keptModel(store, key);
    for (const { sha256 } of model ? filesOf(model) : []) listed.add(sha256);
  }
  return entries.filter(({ sha256 }) => !listed.has(sha256));
}

async function drop(store: Store, entries: StoredEntry[]): Promise<void> {
  for (const { sha256 } of entries) {
    await store.delete(sha256);
    await setRecord(store, sha256, null);
  }
}

/** Deletes a model, except for files that another one shares. */
export async function removeModel(store: Store, base: string): Promise<void> {
  const key = await modelKey(base);
  const kept = await keptModel(store, key);
  if (!kept) return;
  const own = await unlisted(store, filesOf(kept), key);
  const held = (await navigator.locks?.query())?.held ?? [];
  if (held.some(({ name }) => own.some((entry) => name === fileLock(entry)))) {
    throw new GlobeError('Model', 'this model is being downloaded, here or in another tab; stop that first, or delete the model when it is done');
  }
  await drop(store, own);
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
  const key = await modelKey(base);
  const wanted: KeptManifest = { name: manifest.name, text: manifest.text };
  const list = (kept: Omit<KeptModel, 'url'>) => store.setText(key, JSON.stringify({ url: base, ...kept }));
  const before = await keptModel(store, key);
  const dropOld = async () => drop(store, await unlisted(store, before ? filesOf(before) : []));
  const changed = before !== null && before.manifest.text !== wanted.text;
  const lack = await lackOfRoom(manifest, store, 0);
  const refused = lack && (await lackOfRoom(manifest, store, changed ? await bytesOnlyIn(before, manifest, store) : 0));
  if (refused) throw refused;
  const enlist = () => list({ manifest: wanted });
  const fetchAll = async () => {
    for (const entry of manifest.entries) {
      stopIf(context.signal);
      await ensure(base + encodeURIComponent(entry.name), entry, context);
    }
  };
  // A model that was there before stays until the new one is whole, if there is room for both.
  const stays = changed && !lack;
  await (stays ? list({ manifest: before.manifest, next: wanted }) : enlist());
  await dropOld();
  try {
    await fetchAll();
  } catch (thrown) {
    if (!stays || asGlobeError(thrown).code !== 'Quota') throw thrown;
    await enlist();
    await dropOld();
    await fetchAll();
  }
  await enlist(); // also since another tab may have deleted it between two files
  await dropOld();
  const open = async (name: string): Promise<ModelFile | null> => {
    if (name === manifest.name) return textFile(manifest.text);
    const entry = manifest.entries.find((e) => e.name === name);
    return entry ? new StoredFile(base, entry, context, enlist) : null;
  };
  return { open };
}

/** Stored bytes of a model that are of no use to another. */
async function bytesOnlyIn(model: KeptModel, { entries }: Manifest, store: Store): Promise<number> {
  const others = filesOf(model).filter(({ sha256 }) => !entries.some((entry) => entry.sha256 === sha256));
  return storedBytes(others, store);
}

async function storedBytes(entries: StoredEntry[], store: Store): Promise<number> {
  return arrived(await Promise.all(entries.map(({ sha256 }) => record(store, sha256))));
}

/** Bytes of the pieces that have arrived. */
const arrived = (records: Iterable<FileRecord | null>) =>
  [...records].reduce((sum, r) => sum + (r ? Math.min(r.pieces.length * PIECE_BYTES, r.size) : 0), 0);

/** Says early what the browser will refuse late, when `freed` bytes more are free; null if nothing. */
async function lackOfRoom(manifest: Manifest, store: Store, freed: number): Promise<GlobeError | null> {
  if (store.kind === 'memory' || !navigator.storage?.estimate) return null;
  const missing = manifest.totalBytes - (await storedBytes(manifest.entries, store));
  const { quota = Infinity, usage = 0 } = await navigator.storage.estimate();
  const granted = quota - usage + freed;
  if (missing <= granted) return null;
  return new GlobeError('Quota', `the model needs ${megabytes(missing)} more, the browser grants ${megabytes(granted)}; free some disk space, or delete another model`);
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
    const again = this.checked.has(piece) ? await store.read(this.entry.sha256, start, end).catch(() => null) : null;
    if (again?.length === end - start) return again; // else another tab has deleted it meanwhile
    const bytes = await this.intact(piece);
    if (!bytes) {
      await this.refetch(piece);
      return this.part(piece, start, end);
    }
    this.checked.add(piece);
    const first = piece * PIECE_BYTES;
    return bytes.subarray(start - first, end - first);
  }

  /** A piece, if it is what was stored. */
  private async intact(piece: number): Promise<Uint8Array | null> {
    const { store } = this.context;
    const first = piece * PIECE_BYTES;
    const last = Math.min(first + PIECE_BYTES, this.size);
    this.pieces ??= (await record(store, this.entry.sha256))?.pieces ?? [];
    const bytes = await store.read(this.entry.sha256, first, last).catch(() => new Uint8Array());
    return bytes.length === last - first && (await digestOf(bytes)) === this.pieces[piece] ? bytes : null;
  }

  /** A damaged entry is fetched again once, here or by another tab. */
  private async refetch(piece: number): Promise<void> {
    const { name } = this.entry;
    if (this.refetched) throw new GlobeError('Integrity', `${name} was damaged in storage, twice; the disk may be failing`);
    this.refetched = true;
    this.checked.clear();
    await ensure(this.base + encodeURIComponent(name), this.entry, this.context, async () => {
      this.pieces = null;
      if (!(await this.intact(piece))) await drop(this.context.store, [this.entry]);
    });
    this.pieces = null;
    await this.enlist(); // another tab may have deleted the model, and what is stored again must be deletable
  }
}

/** Of a chosen folder, what lies beside the manifest or configuration nearest to its top: folders within it may hold other models. */
export function ofOneFolder(files: File[]): File[] {
  const folder = ({ webkitRelativePath: path }: File) => path.slice(0, path.lastIndexOf('/') + 1);
  const depth = (path: string) => path.split('/').length;
  const named = (names: readonly string[]) => files.filter(({ name }) => names.includes(name)).map(folder).sort((a, b) => depth(a) - depth(b));
  const [top] = [...named(MANIFESTS), ...named(['config.json'])];
  return top === undefined ? files : files.filter((file) => folder(file) === top);
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
        bytes.set(await bytesOfFile(file, at, Math.min(at + PIECE_BYTES, end)), at - start);
        onMoved();
      }
      return bytes;
    };
    return { size: file.size, read };
  };
  const bytes = manifest?.totalBytes ?? files.reduce((sum, file) => sum + file.size, 0);
  return { folder: { open }, bytes, verified: manifest !== null };
}

/** A file may be moved or changed after it was chosen. */
async function bytesOfFile(file: File, start: number, end: number): Promise<Uint8Array> {
  try {
    return new Uint8Array(await file.slice(start, end).arrayBuffer());
  } catch (error) {
    throw new GlobeError('Model', `${file.name} cannot be read any more (${(error as Error).message}); choose the folder again`);
  }
}

async function verify(file: File, entry: Entry, hash: Hasher, signal: AbortSignal, onBytes: (bytes: number) => void): Promise<void> {
  if (file.size !== entry.size) throw new GlobeError('Integrity', `${entry.name} has ${file.size} bytes, its manifest says ${entry.size}; copy it again`);
  for (let start = 0; start < file.size; start += PIECE_BYTES) {
    stopIf(signal);
    const bytes = await bytesOfFile(file, start, start + PIECE_BYTES);
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
    if (SMALL.test(name)) return wholeFile(name, url, signal, onBytes);
    const head = await request(name, url, { method: 'HEAD', signal });
    if (isAbsent(head)) return null;
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

/** Hosts compress text on its way and then do not say how long it is. */
const SMALL = /\.(json|jinja|txt)$/;

async function wholeFile(name: string, url: string, signal: AbortSignal, onBytes: (bytes: number) => void): Promise<ModelFile | null> {
  const response = await request(name, url, { signal });
  if (isAbsent(response)) return null;
  expectFile(name, response);
  const bytes = await arriving(name, signal, () => bodyOf(response, onBytes));
  return { size: bytes.length, read: async (start, end) => bytes.slice(start, end) };
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
