// The dedicated worker: it owns the wasm module, the model and its memory. Ending it gives all of that back.

import init, { Sha256, Stop, WebEngine, inspect, lastPanic } from '../pkg/globe_web.js';
import { GlobeError, asGlobeError, stopIf, unlessStopped } from './errors.js';
import { granted, lacking, refuse, watchDevices } from './gpu.js';
import { Kernels, type KernelList } from './kernels.js';
import type { Beat, CallName, Calls, FromWorker, LoadArgs, ToWorker } from './messages.js';
import { chosenFolder, chosenManifest, fetchManifest, keepKernels, keptKernels, remoteFolder, removeModel, storedFolder, storedModels, unlistedBytes, verifyModel, type ModelFolder } from './model/folder.js';
import { bodyOf, expectFile, network } from './model/download.js';
import { cpuFault, widenedAtMost } from './model/manifest.js';
import { MAX_UNSTORED_BYTES, memoryFault, openStore, type Store } from './model/store.js';
import { STALL_MS } from './watch.js';
import type { LocateEvent, LocateOptions, LocateResult, MemoryUse, ModelInfo, Progress } from './types.js';

/** Tokens are posted together, so that a fast model does not flood the page. */
const BATCH_MS = 40;

let engine: WebEngine | null = null;
let wasm: { memory: WebAssembly.Memory } | null = null;
/** The graphics processor said that it cannot go on; the engine is not used again. */
let broken: GlobeError | null = null;
/** Ends a load that nothing would come of. */
const breaking = new AbortController();
function breakBy(error: GlobeError): void {
  broken ??= error;
  breaking.abort();
}

/** What the page watches while a model loads. */
const beat: Beat = { moved: 0, watched: false };
const moved = () => void beat.moved++;

const post = (message: FromWorker) => self.postMessage(message);

const kernels = new Kernels();
/** Where those of the model are kept; nowhere if it came from files. */
let keep: (kernels: KernelList) => Promise<void> = async () => undefined;

watchDevices(
  kernels,
  (reason) => {
    breakBy(new GlobeError('DeviceLost', `the graphics processor stopped (${reason}); try again`));
    post({ id: 0, lost: reason });
  },
  breakBy,
);

async function start(wasmUrl: string, signal: AbortSignal): Promise<void> {
  if (wasm) return;
  const response = await answerOf(wasmUrl, 'the engine', signal);
  const arriving = bodyOf(response.clone(), moved); // which counts; the other copy is compiled as it comes
  try {
    wasm = await init({ module_or_path: response });
  } catch (error) {
    await arriving.catch((cut: Error) => {
      stopIf(signal);
      throw network('the engine', cut.message);
    });
    const { message } = error as Error;
    const advice = /unsafe-eval|content security/i.test(message) ? "; the page's Content-Security-Policy needs 'wasm-unsafe-eval' in script-src" : '';
    throw new GlobeError('Engine', `the engine cannot be started: ${message}${advice}`);
  }
}

type Emit<N extends CallName> = (event: Calls[N]['event']) => void;
type Handler<N extends CallName> = (args: Calls[N]['args'], signal: AbortSignal, emit: Emit<N>) => Promise<Calls[N]['result']>;

async function load(args: LoadArgs, stopped: AbortSignal, emit: Emit<'load'>): Promise<ModelInfo> {
  const signal = AbortSignal.any([stopped, breaking.signal]);
  try {
    return await loadUntil(args, signal, emit);
  } catch (thrown) {
    throw broken && !stopped.aborted ? broken : thrown;
  } finally {
    beat.watched = false;
  }
}

async function loadUntil(args: LoadArgs, signal: AbortSignal, emit: Emit<'load'>): Promise<ModelInfo> {
  const begin = performance.now();
  stallMs = args.stallMs;
  beat.watched = true;
  await start(args.wasmUrl, signal);
  const gazetteer = await bytesOf(args.gazetteerUrl, 'the gazetteer', signal);
  let device: 'gpu' | 'cpu' = 'gpu';
  const choose = async (widenedBytes: WidenedBytes) => void (device = await chooseDevice(args.device, widenedBytes));
  const told = throttled(emit);
  const opened = await openSource(args, signal, told, choose);
  refuse(args.subgroups ? [] : ['subgroups']);
  const subgroups = device === 'gpu' && (await granted()).includes('subgroups');
  stopIf(signal);
  let uploaded = 0;
  const upload = (bytes: number) => told({ stage: 'upload', done: (uploaded += bytes), total: opened.bytes && Math.max(opened.bytes, uploaded) });
  upload(0);
  engine = await WebEngine.load(counted(opened.folder, upload) as never, device, subgroups, moved);
  emit({ stage: 'upload', done: uploaded, total: uploaded });
  beat.watched = false; // compiling says nothing for long
  stopIf(signal);
  if (broken) throw broken;
  const gazetteerVersion = await warmed(engine, args.warm, gazetteer, emit);
  return {
    architecture: engine.architecture(),
    adapter: engine.adapter(),
    device,
    subgroups,
    kernels: engine.kernels() as ModelInfo['kernels'],
    gazetteer: gazetteerVersion,
    verified: opened.verified,
    storage: opened.storage,
    bytes: opened.bytes,
    loadMs: performance.now() - begin,
  };
}

/** Compiles the kernels and reads the gazetteer, whose version it returns. Who waits has both at once. */
async function warmed(model: WebEngine, wait: boolean, gazetteer: Uint8Array, emit: Emit<'load'>): Promise<string> {
  const warm = () => inTurn(new AbortController().signal, async () => {
    await kernels.compiled();
    await model.warm();
    kernels.started();
    await keepNews();
  });
  if (!wait) {
    const version = model.readGazetteer(gazetteer);
    void warm().catch(explain); // fails again, and is told, when a photo asks for it
    return version;
  }
  emit({ stage: 'compile', done: 0, total: 1 });
  const warming = warm();
  warming.catch(() => undefined); // told below
  await new Promise((resolve) => setTimeout(resolve)); // until everything is launched
  const version = model.readGazetteer(gazetteer);
  await warming;
  if (broken) throw broken;
  emit({ stage: 'compile', done: 1, total: 1 });
  return version;
}

/** The next visit compiles what this one had to wait for while it reads the weights. */
async function keepNews(): Promise<void> {
  const list = kernels.news();
  if (!list) return;
  kernels.expect(list);
  await keep(list).catch(explain); // a visit without them is only slower
}

/** A folder that tells how many bytes were read of it. */
function counted(folder: ModelFolder, onBytes: (bytes: number) => void): ModelFolder {
  const open = async (name: string) => {
    const file = await folder.open(name);
    if (!file) return null;
    const read = async (start: number, end: number) => {
      const bytes = await file.read(start, end);
      onBytes(bytes.length);
      return bytes;
    };
    return { size: file.size, read };
  };
  return { open };
}

/** Bytes of a model as f32, asked for only where the CPU path is considered. */
type WidenedBytes = () => Promise<number>;

interface Opened {
  folder: ModelFolder;
  bytes: number;
  verified: boolean;
  storage: ModelInfo['storage'];
}

/** The folder of a model. `choose` hears of its size as f32 before anything large is fetched or read, and may refuse it. */
async function openSource(args: LoadArgs, signal: AbortSignal, emit: Emit<'load'>, choose: (widenedBytes: WidenedBytes) => Promise<void>): Promise<Opened> {
  const hasher = () => new Sha256();
  let [fetched, verified] = [0, 0];
  if ('files' in args.source) {
    const { files } = args.source;
    await choose(async () => (await chosenManifest(files))?.widenedBytes ?? widenedAtMost(files.filter(({ name }) => name.endsWith('.safetensors')).reduce((sum, { size }) => sum + size, 0)));
    const chosen = await chosenFolder(files, { hasher, signal, onMoved: moved }, (bytes, total, file) => {
      verified += bytes;
      emit({ stage: 'verify', done: verified, total, file });
    });
    return { ...chosen, storage: 'none' };
  }
  const base = args.source.url;
  const store = await openStore(args.cache);
  const manifest = await fetchManifest(base, signal, store);
  await choose(async () => manifest?.widenedBytes ?? widenedAtMost(await unlistedBytes(base, signal)));
  if (!manifest) {
    const onBytes = (bytes: number) => {
      moved();
      emit({ stage: 'fetch', done: (fetched += bytes), total: 0 });
    };
    return { folder: remoteFolder(base, signal, onBytes), bytes: 0, verified: false, storage: 'none' };
  }
  kernels.expect(await keptKernels(store, base));
  // Memory is no place to keep anything for the next visit, and would hold the weights along.
  if (store.kind !== 'memory') keep = (list) => keepKernels(store, base, list);
  const total = manifest.totalBytes;
  const tooLarge = store.kind === 'memory' ? memoryFault(total) : null;
  if (tooLarge) throw tooLarge;
  const onBytes = (stage: 'fetch' | 'verify', bytes: number) => {
    if (stage === 'verify') verified += bytes;
    fetched += bytes; // what an earlier visit fetched counts, once it is verified
    emit({ stage: stage === 'verify' ? 'verify' : 'fetch', done: stage === 'verify' ? verified : fetched, total });
  };
  const open = async (kept: Store): Promise<Opened> => {
    const folder = await storedFolder(base, manifest, { store: kept, hasher, signal, onBytes, onMoved: moved });
    return { folder, bytes: total, verified: true, storage: kept.kind };
  };
  try {
    return await open(store);
  } catch (thrown) {
    const refused = asGlobeError(thrown).code === 'Quota' && store.kind !== 'memory';
    if (!refused || total > MAX_UNSTORED_BYTES) throw thrown;
    fetched = verified = 0;
    return open(await openStore(false));
  }
}

/** Progress by bytes arrives far more often than a page can draw. */
function throttled(emit: (progress: Progress) => void): (progress: Progress) => void {
  let [last, stage] = [0, ''];
  return (progress: Progress) => {
    const now = performance.now();
    if (progress.stage === stage && progress.done !== progress.total && now - last < BATCH_MS) return;
    [last, stage] = [now, progress.stage];
    emit(progress);
  };
}

async function chooseDevice(wanted: LoadArgs['device'], widenedBytes: WidenedBytes): Promise<'gpu' | 'cpu'> {
  const reason = wanted === 'cpu' ? null : await lacking();
  if (!reason && wanted !== 'cpu') return 'gpu';
  if (reason && wanted === 'gpu') throw reason;
  const fault = cpuFault(await widenedBytes(), reason);
  if (fault) throw fault;
  return 'cpu';
}

async function answerOf(url: string, what: string, signal: AbortSignal): Promise<Response> {
  const response = await fetch(url, { signal }).catch((error: unknown) => {
    stopIf(signal);
    throw network(what, (error as Error).message);
  });
  expectFile(what, response);
  return response;
}

const bytesOf = async (url: string, what: string, signal: AbortSignal) => bodyOf(await answerOf(url, what, signal), moved);

function loaded(): WebEngine {
  if (broken) throw broken;
  if (!engine) throw new GlobeError('Option', 'no model is loaded; call load first');
  return engine;
}

async function locate(
  { image, options }: Calls['locate']['args'],
  signal: AbortSignal,
  emit: Emit<'locate'>,
): Promise<LocateResult> {
  const model = loaded();
  await unlessStopped(signal, kernels.compiled()); // a driver that compiles for long is not dead
  const stop = new Stop();
  const abort = () => stop.stop();
  signal.addEventListener('abort', abort, { once: true });
  const batch = new Batch(emit);
  try {
    const json = await model.locate(new Uint8Array(image), optionsJson(options), stop, (kind: string, a: number, b: number, text: string) => {
      if (kind === 'token') batch.token(a, b, text);
      else batch.other(kind, a, b);
    });
    if (broken) throw broken; // what was computed without memory is no answer
    batch.flush();
    return JSON.parse(json) as LocateResult;
  } finally {
    signal.removeEventListener('abort', abort);
    stop.free();
  }
}

/** Options with the names of the command line; what is absent keeps its default there. */
function optionsJson(options: LocateOptions): string {
  const { samples, batch, topK, seed, maxTokens, maxPixels, precision, sampling, prompt, system } = options;
  return JSON.stringify({
    samples, batch, top_k: topK, seed, max_tokens: maxTokens, max_pixels: maxPixels, precision, sampling, prompt, system,
  });
}

/** Gathers the tokens of each answer until some time has passed. */
class Batch {
  private readonly waiting = new Map<number, { ids: number[]; text: string }>();
  private since = 0;

  constructor(private readonly emit: (event: LocateEvent) => void) {}

  token(sample: number, id: number, text: string): void {
    if (this.waiting.size === 0) this.since = performance.now();
    const tokens = this.waiting.get(sample) ?? { ids: [], text: '' };
    tokens.ids.push(id);
    tokens.text += text;
    this.waiting.set(sample, tokens);
    if (performance.now() - this.since >= BATCH_MS) this.flush();
  }

  other(kind: string, a: number, b: number): void {
    this.flush();
    if (kind === 'prepared') this.emit({ kind, promptTokens: a, imageTokens: b });
    else if (kind === 'encoded' || kind === 'prefilled') this.emit({ kind });
    else if (kind === 'ended') this.emit({ kind, sample: a, stop: b === 1 ? 'max_tokens' : 'end_of_text' });
  }

  flush(): void {
    for (const [sample, { ids, text }] of this.waiting) this.emit({ kind: 'tokens', sample, ids, text });
    this.waiting.clear();
  }
}

const handlers: { [N in CallName]: Handler<N> } = {
  load,
  locate: (args, signal, emit) => inTurn(signal, () => locate(args, signal, emit)).finally(() => void keepNews()),
  inspect: async ({ image }) => JSON.parse(inspect(new Uint8Array(image))) as Calls['inspect']['result'],
  rounded: async ({ precision }) => {
    const json = engine?.rounded(precision); // needs no device; null once the engine is gone
    return json === undefined ? null : (JSON.parse(json) as LocateResult);
  },
  logits: ({ images, prompt, system, tokens }, signal) =>
    inTurn(signal, async () => {
      const bytes = images.map((image) => new Uint8Array(image));
      return JSON.parse(await loaded().logits(bytes, JSON.stringify({ prompt, system, tokens }))) as Calls['logits']['result'];
    }),
  stored: async () => storedModels(await openStore(true)),
  remove: async ({ url }) => {
    await removeModel(await openStore(true), url);
    return null;
  },
  verify: async ({ url, wasmUrl }, signal, emit) => {
    await start(wasmUrl, signal);
    const told = throttled(emit);
    return verifyModel(await openStore(true), url, () => new Sha256(), signal, (done, total, file) => told({ stage: 'verify', done, total, file }));
  },
  forget: (_, signal) =>
    inTurn(signal, async () => {
      engine?.forget();
      return null;
    }),
  memory: async () => ({ wasmBytes: wasm?.memory.buffer.byteLength ?? 0, ...(JSON.parse(loaded().memory()) as Omit<MemoryUse, 'wasmBytes'>) }),
  dispose: async () => {
    engine?.dispose();
    engine = null;
    return null;
  },
};

/** One model answers one photo at a time. Who stops is told at once; the next one begins when the work has ended, or is given up. */
let queue: Promise<unknown> = Promise.resolve();
let stallMs = STALL_MS;
function inTurn<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const before = queue;
  const turn = before.then(() => {
    stopIf(signal);
    return work();
  });
  const ended = turn.then(nothing, nothing);
  queue = Promise.race([ended, untilGivenUp(signal, before, ended)]);
  return unlessStopped(signal, turn);
}

const nothing = () => undefined;

/** Settles when work goes on long after it was stopped: some drivers never answer. The next call finds the device lost. */
async function untilGivenUp(signal: AbortSignal, before: Promise<unknown>, ended: Promise<void>): Promise<void> {
  await before; // what waits is not at work
  const stop = new Promise((heard) => signal.addEventListener('abort', heard, { once: true }));
  if (!signal.aborted) await stop;
  let timer: ReturnType<typeof setTimeout> | undefined;
  await new Promise<void>((done) => {
    timer = setTimeout(() => {
      breakBy(new GlobeError('DeviceLost', `the graphics processor was still busy ${stallMs / 1000} s after a stop; try again`));
      done();
    }, stallMs);
    void ended.then(done);
  });
  clearTimeout(timer);
}

const running = new Map<number, AbortController>();

async function answer(message: Extract<ToWorker, { call: CallName }>): Promise<void> {
  const { id, call, args } = message;
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const handler = handlers[call] as Handler<CallName>;
    const result = await handler(args, controller.signal, (event) => post({ id, event }));
    post({ id, result });
  } catch (thrown) {
    const error = explain(thrown);
    post({ id, error, spent: broken !== null });
  } finally {
    running.delete(id);
  }
}

/** A trap of the module carries its reason in the panic message, or in what the device said before it. */
function explain(thrown: unknown): { code: GlobeError['code']; message: string } {
  const trapped = thrown instanceof WebAssembly.RuntimeError;
  if (trapped) {
    engine = null; // its memory is in an unknown state
    broken ??= new GlobeError('Engine', `the engine stopped: ${lastPanic() ?? thrown.message}`);
  }
  if (broken?.code === 'DoesNotFit') {
    const dying = engine;
    engine = null;
    // All of the adapter's memory, also for other tabs: when the call that holds it has ended.
    void queue.then(() => dying?.dispose()).catch(() => undefined);
  }
  const error = asGlobeError(thrown);
  const shown = broken && (trapped || error.code === 'Engine' || error.code === 'DeviceLost') ? broken : error;
  return { code: shown.code, message: shown.message };
}

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if ('beat' in data) post({ id: 0, beat });
  else if ('abort' in data) running.get(data.id)?.abort();
  else void answer(data);
};
