// The protocol between page and worker: calls with an id, events and one reply to each.

import type { ErrorCode } from './errors.js';
import type {
  DeviceChoice, LocateEvent, LocateOptions, LocateResult, Logits, MemoryUse, ModelInfo, ModelSource, PhotoInfo,
  Precision, Progress, StoredModel, Verification,
} from './types.js';

/** Arguments, result and events of every call. */
export interface Calls {
  load: { args: LoadArgs; result: ModelInfo; event: Progress };
  locate: { args: { image: ArrayBuffer; options: LocateOptions }; result: LocateResult; event: LocateEvent };
  inspect: { args: { image: ArrayBuffer }; result: PhotoInfo; event: never };
  rounded: { args: { precision: Precision }; result: LocateResult | null; event: never };
  logits: {
    args: { images: ArrayBuffer[]; prompt: string; system?: string | null; tokens: number };
    result: Logits;
    event: never;
  };
  stored: { args: null; result: StoredModel[]; event: never };
  remove: { args: { url: string }; result: null; event: never };
  verify: { args: { url: string; wasmUrl: string }; result: Verification; event: Progress };
  forget: { args: null; result: null; event: never };
  memory: { args: null; result: MemoryUse; event: never };
  dispose: { args: null; result: null; event: never };
}

/** What the worker needs to load a model. */
export interface LoadArgs {
  source: ModelSource;
  wasmUrl: string;
  gazetteerUrl: string;
  device: DeviceChoice;
  subgroups: boolean;
  cache: boolean;
  warm: boolean;
  /** What is stopped and has not ended after so long is given up, ms. */
  stallMs: number;
}

/** Sign of life of a worker. */
export interface Beat {
  /** Grows whenever bytes or tensors of a load move. */
  moved: number;
  /** Whether something should move: not while the module or kernels are compiled. */
  watched: boolean;
}

export type CallName = keyof Calls;

/** Page to worker. */
export type ToWorker =
  | { [N in CallName]: { id: number; call: N; args: Calls[N]['args'] } }[CallName]
  | { id: number; abort: true }
  | { beat: true };

/** Worker to page. */
export type FromWorker =
  | { id: number; event: unknown }
  | { id: number; result: unknown }
  /** `spent`: the worker cannot compute any more, only give its memory back. */
  | { id: number; error: { code: ErrorCode; message: string }; spent: boolean }
  /** Sent without a call: the device is gone. */
  | { id: 0; lost: string }
  | { id: 0; beat: Beat };
