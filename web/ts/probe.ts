// What this browser can run, said before anything large is downloaded.

import { asGlobeError, type ErrorCode } from './errors.js';
import { findAdapter, type AdapterInfo } from './gpu.js';
import { fetchManifest } from './model/folder.js';
import { MAX_UNSTORED_BYTES } from './model/store.js';
import { folderUrl } from './urls.js';

/** The CPU path of the worker takes no more. */
const MAX_CPU_MODEL_BYTES = 512 << 20;

/** Cache, activations and buffers beside the weights: what a small model needs, and what a large one needs at most. */
const [LEAST_WORKING_BYTES, MOST_WORKING_BYTES] = [32 << 20, 512 << 20];
const needed = (bytes: number) => bytes + Math.min(LEAST_WORKING_BYTES + bytes, MOST_WORKING_BYTES);

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
  /** Of the model, where one was named and has a manifest. */
  model: { bytes: number; neededBytes: number } | null;
}

/** Looks at the adapter, at the storage and, if a folder is named, at its manifest; `keptBytes` says what a stored copy has. */
export async function probe(url: string | undefined, keptBytes: () => Promise<number | null>): Promise<Probe> {
  const fetched = url === undefined ? null : fetchManifest(folderUrl(url), AbortSignal.timeout(20_000));
  fetched?.catch(() => undefined); // looked at below
  const [{ info: adapter, missing }, storage] = await Promise.all([findAdapter(), estimate()]);
  const facts = { adapter, storage };
  let model: Probe['model'] = null;
  let largestPart = 0;
  try {
    const manifest = await fetched;
    if (manifest) {
      model = { bytes: manifest.totalBytes, neededBytes: needed(manifest.totalBytes) };
      largestPart = manifest.largestPart;
    }
  } catch (thrown) {
    const { code, message } = asGlobeError(thrown);
    // Without the network, a stored model is as good.
    const bytes = code === 'Network' ? await keptBytes() : null;
    if (bytes !== null) model = { bytes, neededBytes: needed(bytes) };
    else return { fits: false, reason: message, code, device: null, model: null, ...facts };
  }
  const verdict = (fits: boolean, device: Probe['device'], reason: string, code: ErrorCode | null = null): Probe => ({ fits, reason, code, device, model, ...facts });
  const unstored = model && storage && model.bytes > storage.quota ? storage.quota : null;
  if (model && storage && unstored !== null && model.bytes > MAX_UNSTORED_BYTES) {
    return verdict(false, null, `The model has ${size(model.bytes)}, this browser grants ${size(storage.quota)} of storage.`, 'Quota');
  }
  if (missing) {
    if (model && model.bytes > MAX_CPU_MODEL_BYTES) return verdict(false, null, `${missing.message}.`, missing.code);
    return verdict(true, 'cpu', `${missing.message}. A small model runs on the processor instead, slowly.`, missing.code);
  }
  if (adapter && largestPart > adapter.maxBindingBytes) {
    return verdict(false, 'gpu', `A part of the model takes ${size(largestPart)}; this graphics processor binds at most ${size(adapter.maxBindingBytes)}.`, 'DoesNotFit');
  }
  const kept = unstored !== null ? ` The browser grants only ${size(unstored)} of storage, so the model is downloaded at each visit.` : '';
  const memory = model ? ` It needs about ${size(model.neededBytes)} of graphics memory, which browsers do not let a page measure.` : '';
  return verdict(true, 'gpu', `This browser can run it on its graphics processor.${memory}${kept}`);
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
