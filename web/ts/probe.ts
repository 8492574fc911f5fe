// What this browser can run, said before anything large is downloaded.

import { asGlobeError, secureOnly, type ErrorCode } from './errors.js';
import { findAdapter } from './gpu.js';
import { expectModel, fetchManifest, unlistedBytes } from './model/folder.js';
import { digestOfText } from './model/download.js';
import { cpuFault, widenedAtMost, type Manifest } from './model/manifest.js';
import { MAX_UNSTORED_BYTES, canStore, memoryFault } from './model/store.js';
import type { AdapterInfo, DeviceChoice, StoredModel } from './types.js';
import { folderUrl } from './urls.js';

/** A server has this long for a manifest, ms. */
const PATIENCE_MS = 20_000;

const [SMALL_BYTES, LARGE_BYTES, LARGE_SHARE] = [32 << 20, 480 << 20, 0.12];
/**
 * Weights, and cache, activations and buffers beside them: what a small model needs, and what the plan of `globe inspect` says of 3B and 7B
 * in 4 bits for 8 answers of 512 tokens to a photo of a megapixel.
 */
const needed = (bytes: number) => bytes + Math.round(Math.min(SMALL_BYTES + bytes, LARGE_BYTES + LARGE_SHARE * bytes));

/** Verdict and the facts behind it. */
export interface Probe {
  /** `false` only where loading would certainly fail. */
  fits: boolean;
  /** A sentence for the visitor. */
  reason: string;
  code: ErrorCode | null;
  device: 'gpu' | 'cpu' | null;
  adapter: AdapterInfo | null;
  storage: { quota: number; usage: number } | null;
  /** Of the model, where one was named; `digest`: the SHA-256 of its manifest, empty if it has none and is kept nowhere. `keeps`: a later visit finds it stored. */
  model: { bytes: number; neededBytes: number; keeps: boolean; digest: string } | null;
}

/** What is known of a model: from the server, or from the stored copy. */
type Known = Pick<Manifest, 'totalBytes' | 'widenedBytes' | 'largestPart'> & Pick<StoredModel, 'digest'>;

/** How the model would be loaded; `kept` says what is stored of it. */
interface Wanted {
  device: DeviceChoice;
  cache: boolean;
  kept: () => Promise<StoredModel | null>;
}

/** Looks at the adapter, at the storage and, if a folder is named, at its manifest. */
export async function probe(url: string | undefined, { device, cache, kept }: Wanted): Promise<Probe> {
  const nothing = { adapter: null, storage: null, model: null };
  const fails = (thrown: unknown, facts: Pick<Probe, 'adapter' | 'storage' | 'model'>): Probe => {
    const { code, message } = asGlobeError(thrown);
    return { fits: false, reason: message, code, device: null, ...facts };
  };
  try {
    secureOnly();
  } catch (thrown) {
    return fails(thrown, nothing);
  }
  const asked = url === undefined ? null : lookAt(url, cache ? kept : async () => null);
  asked?.catch(() => undefined); // looked at below
  const [{ info: adapter, missing }, storage] = await Promise.all([findAdapter(), estimate()]);
  const facts = { adapter, storage };
  let known: Known | null;
  try {
    known = await asked;
  } catch (thrown) {
    return fails(thrown, { ...facts, model: null });
  }
  const listed = known !== null && known.digest !== '';
  const model = known && { bytes: known.totalBytes, neededBytes: needed(known.totalBytes), keeps: cache && listed && (await canStore()), digest: known.digest };
  const verdict = (fits: boolean, device: Probe['device'], reason: string, code: ErrorCode | null = null): Probe => ({ fits, reason, code, device, model, ...facts });
  let room = storage && Math.max(0, storage.quota - storage.usage);
  // What is stored of this model takes no more.
  if (model && room !== null && model.bytes > room) room += (await kept().catch(() => null))?.bytes ?? 0;
  const unstored = cache && listed && model && room !== null && model.bytes > room ? room : null;
  if (model && unstored !== null) {
    model.keeps = false;
    if (model.bytes > MAX_UNSTORED_BYTES) return verdict(false, null, `The model has ${size(model.bytes)}, this browser grants ${size(unstored)} of storage.`, 'Quota');
  }
  const tooLarge = model && listed && !cache ? memoryFault(model.bytes) : null;
  if (tooLarge) return verdict(false, null, tooLarge.message, tooLarge.code);
  if (device === 'gpu' && missing) return verdict(false, null, missing.message, missing.code);
  if (device === 'cpu' || missing) {
    const reason = device === 'cpu' ? null : missing;
    const fault = cpuFault(known?.widenedBytes ?? 0, reason);
    if (fault) return verdict(false, null, fault.message, fault.code);
    const why = reason ? `${reason.message}. A small model runs on the processor instead, slowly.` : 'This browser can run it on its processor, slowly.';
    return verdict(true, 'cpu', why, reason?.code ?? null);
  }
  if (known && adapter && known.largestPart > adapter.maxBindingBytes) {
    return verdict(false, 'gpu', `A part of the model takes ${size(known.largestPart)}; this graphics processor binds at most ${size(adapter.maxBindingBytes)}.`, 'DoesNotFit');
  }
  const visits = unstored === null ? '' : ` The browser grants only ${size(unstored)} of storage, so the model is downloaded at each visit.`;
  const memory = model ? ` It needs about ${size(model.neededBytes)} of graphics memory, which browsers do not let a page measure.` : '';
  return verdict(true, 'gpu', `This browser can run it on its graphics processor.${memory}${visits}`);
}

/** What is known of the model of a folder; null for one that does not say its size. Without the network, a stored model is as good. */
async function lookAt(url: string, kept: () => Promise<StoredModel | null>): Promise<Known | null> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const base = folderUrl(url);
  try {
    const manifest = await fetchManifest(base, signal);
    if (manifest) return { ...manifest, digest: await digestOfText(manifest.text) };
    await expectModel(base, signal);
    const totalBytes = await unlistedBytes(base, signal);
    return totalBytes > 0 ? { totalBytes, widenedBytes: widenedAtMost(totalBytes), largestPart: 0, digest: '' } : null;
  } catch (thrown) {
    const stored = asGlobeError(thrown).code === 'Network' ? await kept() : null;
    if (!stored?.complete) throw thrown;
    return { totalBytes: stored.bytes, ...stored };
  }
}

async function estimate(): Promise<Probe['storage']> {
  const found = await navigator.storage?.estimate?.().catch(() => null);
  return found ? { quota: found.quota ?? 0, usage: found.usage ?? 0 } : null;
}

/** Bytes in words, number and unit on one line. */
export function size(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)}\u00a0GB`;
  return bytes >= 1e6 ? `${Math.round(bytes / 1e6)}\u00a0MB` : `${Math.max(1, Math.round(bytes / 1e3))}\u00a0kB`;
}
