// Typed errors: a code for programs, a sentence for visitors.

/** What went wrong, for programs. */
export type ErrorCode =
  | 'Insecure' // the page was not opened over https, so browsers give it neither graphics processor nor storage
  | 'NoWebGpu' // no graphics processor, and the model is too large for the CPU path
  | 'MissingFeature' // the graphics processor lacks something the engine needs
  | 'DoesNotFit' // memory of the graphics processor, one of its limits, or the room of the CPU path
  | 'Quota' // the browser refuses to store so much, or what is not stored is too large for memory
  | 'Integrity' // bytes differ from their digest
  | 'Network' // a file did not arrive
  | 'Stalled' // a load stood still, and did so again when it was begun anew
  | 'DeviceLost' // the graphics processor stopped, twice
  | 'Aborted' // the caller's signal, or dispose()
  | 'Image' // the file is no image that can be read
  | 'Model' // the model folder is incomplete, or of another kind or version
  | 'Option' // an option is out of range
  | 'Engine'; // anything else: a fault of ours

const CODES: readonly string[] = [
  'Insecure', 'NoWebGpu', 'MissingFeature', 'DoesNotFit', 'Quota', 'Integrity', 'Network', 'Stalled',
  'DeviceLost', 'Aborted', 'Image', 'Model', 'Option', 'Engine',
];

/** Every rejection of this package. */
export class GlobeError extends Error {
  override readonly name = 'GlobeError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** Anything thrown as a GlobeError; what has no code is a fault of the engine. */
export function asGlobeError(thrown: unknown): GlobeError {
  if (thrown instanceof GlobeError) return thrown;
  const { code, name, message } = (thrown ?? {}) as { code?: unknown; name?: string; message?: string };
  if (typeof code === 'string' && CODES.includes(code)) {
    return new GlobeError(code as ErrorCode, message ?? code);
  }
  if (name === 'AbortError') return stopped();
  if (name === 'QuotaExceededError') return quota();
  return new GlobeError('Engine', message ?? String(thrown));
}

/** The browser has no room. */
export function quota(): GlobeError {
  return new GlobeError('Quota', 'the browser has no room to store the model; free some space, or delete another model');
}

/** What a caller's stop makes of a call. */
export const stopped = () => new GlobeError('Aborted', 'stopped');

/** Throws if the caller asked for a stop. */
export function stopIf(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw stopped();
}

/** `work`, or `Aborted` as soon as the caller asks for a stop: who waits does not wait for what cannot be stopped. */
export async function unlessStopped<T>(signal: AbortSignal | undefined, work: Promise<T>): Promise<T> {
  if (!signal) return work;
  work.catch(() => undefined); // nobody may be left who hears of it
  stopIf(signal);
  let stop = () => {};
  const stopping = new Promise<never>((_, reject) => {
    stop = () => reject(stopped());
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([work, stopping]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** Throws on a page to which browsers give neither WebGPU nor digests nor storage. */
export function secureOnly(): void {
  if (!isSecureContext) throw new GlobeError('Insecure', `browsers let a page use the graphics processor and storage only over https; open ${location.host} with https, or as localhost`);
}
