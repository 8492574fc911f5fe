// The list of a model's files with their digests.

import { GlobeError } from '../errors.js';
import { parsed } from './store.js';

/** One file of a model. */
export interface Entry {
  name: string;
  size: number;
  sha256: string;
}

/** What is kept of an entry's name and size does not matter to who deletes it. */
export type StoredEntry = Pick<Entry, 'sha256'>;

/** Files that a kept manifest names, also one of another version. */
export function storedEntries(text: string): StoredEntry[] {
  const { files, shards }: Raw = parsed<Raw>(text) ?? {};
  return [...list(files), ...list(shards)].flatMap(({ sha256 }) => (typeof sha256 === 'string' && DIGEST.test(sha256) ? [{ sha256 }] : []));
}

const list = (value: unknown) => (Array.isArray(value) ? value.filter((item): item is Record<string, unknown> => typeof item === 'object' && item !== null) : []);

/** What a manifest says; `text` is kept for the engine and for offline use. */
export interface Manifest {
  name: string;
  text: string;
  entries: Entry[];
  totalBytes: number;
  /** Largest part that must be bound at once, where the manifest says it. */
  largestPart: number;
  /** What the CPU path holds, which makes f32 of every weight. */
  widenedBytes: number;
}

/** Names under which a manifest may lie, best first: weights packed by us, or a plain list of files. */
export const MANIFESTS = ['manifest.json', 'files.json'] as const;

const FORMATS: Record<string, string> = { 'manifest.json': 'globe-packed', 'files.json': 'globe-files' };
const VERSION = 1;
const DIGEST = /^[0-9a-f]{64}$/;
const PLAIN_NAME = /^(?!\.{1,2}$)[^/\\:\u0000-\u001f]+$/;

interface Raw {
  format?: unknown;
  version?: unknown;
  shards?: unknown;
  files?: unknown;
  tensors?: unknown;
}

interface RawTensor {
  shape?: unknown;
  parts?: unknown;
}

interface RawPart {
  words?: { size?: number };
}

/** The CPU path makes f32 of every weight inside 4 GiB of wasm memory, and is slow. */
export const MAX_CPU_BYTES = 1 << 30;

/** Why the CPU path has no room for a model, `reason` being why it would have to be that path; null if it has. */
export function cpuFault(widenedBytes: number, reason: GlobeError | null): GlobeError | null {
  if (widenedBytes <= MAX_CPU_BYTES) return null;
  const mebibytes = (bytes: number) => `${Math.ceil(bytes / (1 << 20))} MiB`;
  const limit = `the processor only models of up to ${mebibytes(MAX_CPU_BYTES)} as f32 run, this one takes up to ${mebibytes(widenedBytes)}`;
  return reason ? new GlobeError(reason.code, `${reason.message}. On ${limit}`) : new GlobeError('DoesNotFit', `on ${limit}`);
}

/** What files without a table of tensors take as f32: they hold 16 bits a weight, or 32. */
export const widenedAtMost = (bytes: number) => 2 * bytes;

/** Reads a manifest and refuses what would let a file leave its folder or pass unverified. */
export function parseManifest(name: string, text: string): Manifest {
  const fail = (what: string) => new GlobeError('Model', `${name}: ${what}; convert the model again`);
  let raw: Raw;
  try {
    raw = JSON.parse(text) as Raw;
  } catch {
    throw fail('not valid JSON');
  }
  if (typeof raw !== 'object' || raw === null || raw.format !== FORMATS[name]) {
    throw fail(`the format is not ${FORMATS[name]}`);
  }
  if (raw.version !== VERSION) {
    throw new GlobeError('Model', `${name} is of version ${String(raw.version)}, this page reads version ${VERSION}; reload the page for a newer one, or convert the model again`);
  }
  const entries = [...list(raw.files), ...list(raw.shards)].map((file): Entry => {
    const [fileName, size, sha256] = [file['name'] ?? file['file'], file['size'], file['sha256']];
    if (typeof fileName !== 'string' || !PLAIN_NAME.test(fileName)) throw fail('a file has no plain name');
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw fail(`${fileName} has no size`);
    if (typeof sha256 !== 'string' || !DIGEST.test(sha256)) throw fail(`${fileName} has no SHA-256`);
    return { name: fileName, size, sha256 };
  });
  if (entries.length === 0) throw fail('it lists no files');
  const tensors = list(raw.tensors) as RawTensor[];
  const parts = tensors.flatMap((tensor) => list(tensor.parts) as RawPart[]);
  const totalBytes = entries.reduce((sum, entry) => sum + entry.size, 0);
  const numbers = tensors.map(({ shape }) => (Array.isArray(shape) ? (shape as number[]) : []).reduce((product, n) => product * n, 1));
  return {
    name,
    text,
    entries,
    totalBytes,
    widenedBytes: raw.tensors ? 4 * numbers.reduce((sum, n) => sum + n, 0) : widenedAtMost(totalBytes),
    largestPart: parts.reduce((max, part) => Math.max(max, part.words?.size ?? 0), 0),
  };
}
