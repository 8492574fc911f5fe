// What callers pass in and get back.

/** Where the model comes from: a folder on a server, or files the visitor chose. */
export type ModelSource = { url: string } | { files: File[] };

/** Which processor computes: `auto` takes WebGPU, and the CPU for small models without it. */
export type DeviceChoice = 'auto' | 'gpu' | 'cpu';

/** How far a load is. */
export interface Progress {
  /** All count bytes but `compile`, which counts steps. */
  stage: 'fetch' | 'verify' | 'upload' | 'compile';
  done: number;
  total: number;
  /** The file at hand, where there is one. */
  file?: string;
}

/** How finely places are shown. */
export type Precision = 'country' | 'region' | 'city';

/** How tokens are chosen; what is absent keeps the default of the command line. */
export interface Sampling {
  temperature?: number;
  top_k?: number;
  top_p?: number;
  repetition_penalty?: number;
  frequency_penalty?: number;
  presence_penalty?: number;
}

/** How a photo is located; what is absent keeps the default of the command line. */
export interface LocateOptions {
  samples?: number;
  /** Answers drawn at once, 1 without it: more are faster together, and their tokens arrive in turns. */
  batch?: number;
  topK?: number;
  seed?: number;
  maxTokens?: number;
  maxPixels?: number;
  precision?: Precision;
  sampling?: Sampling;
  prompt?: string;
  system?: string;
}

/** What happens while a photo is located. */
export type LocateEvent =
  | { kind: 'prepared'; promptTokens: number; imageTokens: number }
  | { kind: 'encoded' }
  | { kind: 'prefilled' }
  | { kind: 'tokens'; sample: number; ids: number[]; text: string }
  | { kind: 'ended'; sample: number; stop: 'end_of_text' | 'max_tokens' };

/** A place, best first. */
export interface Candidate {
  rank: number;
  country: string;
  country_code: string;
  region: string | null;
  city: string | null;
  lat: number;
  lon: number;
  radius_km: number;
  /** Vote share: votes over all samples. Not a probability. */
  confidence: number;
  votes: number;
  match_kind: string;
}

/** One sampled answer. Its text is written by a model: it is not evidence. */
export interface Answer {
  parse_status: string;
  country: string | null;
  city: string | null;
  reasoning: string | null;
  text: string | null;
  tokens: number;
  stop: 'end_of_text' | 'max_tokens';
}

/** The result, with the names of `globe locate --format json`. */
export interface LocateResult {
  schema: number;
  located: boolean;
  samples: number;
  parsed: number;
  parse_failures: number;
  refusals: number;
  not_in_gazetteer: number;
  candidates: Candidate[];
  answers: Answer[];
  /** Position written in the file. The model never saw it. */
  exif_gps: { lat: number; lon: number } | null;
  model: string;
  adapter: string;
  prompt_sha256: string;
  gazetteer: string;
  sampling: Required<Sampling>;
  seed: number;
  timings: {
    prompt_tokens: number;
    image_tokens: number;
    answer_tokens: number;
    /** Most answers that were drawn at once. */
    at_once: number;
    prepare_ms: number;
    prefill_ms: number;
    decode_ms: number;
  };
}

/** What a photo says about itself. */
export interface PhotoInfo {
  format: string | null;
  width: number;
  height: number;
  orientation: number;
  gps: { lat: number; lon: number } | null;
  warning: string | null;
}

/** What matters of an adapter. */
export interface AdapterInfo {
  description: string;
  f16: boolean;
  subgroups: boolean;
  timestamps: boolean;
  maxBindingBytes: number;
  maxBufferBytes: number;
  storageBuffersPerStage: number;
}

/** A loaded model. */
export interface ModelInfo {
  architecture: string;
  adapter: string;
  device: 'gpu' | 'cpu';
  /** Whether kernels may use subgroups. */
  subgroups: boolean;
  /** Which kernels multiply by packed matrices. */
  kernels: 'lanes' | 'quads' | 'subgroups' | 'teams';
  gazetteer: string;
  /** Whether every byte was compared with a digest of the folder's manifest. */
  verified: boolean;
  /** Where its files are kept. */
  storage: 'opfs' | 'cache' | 'memory' | 'none';
  /** Bytes of the model files. */
  bytes: number;
  loadMs: number;
}

/** Bytes by place. */
export interface MemoryUse {
  /** Taken by the wasm module; it never shrinks before dispose. */
  wasmBytes: number;
  /** Held on the module's heap. */
  heapBytes: number;
  /** Most that was ever held there. */
  heapPeakBytes: number;
  /** Held by tensors on the graphics processor; 0 on the CPU path. */
  deviceBytes: number;
  /** Taken from its driver. */
  deviceReservedBytes: number;
}

/** A model kept by the browser. */
export interface StoredModel {
  url: string;
  bytes: number;
  complete: boolean;
  /** SHA-256 of its manifest, in hexadecimal: the server may have another model at the address by now. */
  digest: string;
  /** What the CPU path would hold, which makes f32 of every weight. */
  widenedBytes: number;
  /** Largest part that must be bound at once; 0 where the manifest does not say it. */
  largestPart: number;
}

/** What became of a stored model when every byte was compared with its digests. */
export interface Verification {
  /** Bytes that are as they should be. */
  bytes: number;
  /** Files that differ. They count as absent from now on: the next load fetches them again. */
  damaged: string[];
  /** Files that never arrived as a whole. */
  missing: string[];
}

/** Logits and greedy tokens of a prompt, to compare implementations. */
export interface Logits {
  input_ids: number[];
  image_grid_thw: [number, number, number][];
  last_logits: number[];
  greedy: number[];
}
