// What the graphics processor offers, and word of its loss.

import { GlobeError } from './errors.js';
import type { Kernels } from './kernels.js';
import type { AdapterInfo } from './types.js';

/** Kernels are written for these limits, which WebGPU guarantees; an adapter may still offer less in compatibility mode. */
const NEEDED = { maxStorageBuffersPerShaderStage: 8, maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupStorageSize: 16384 };

/** The adapter that the engine would use, or null. */
const request = () => navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null) ?? Promise.resolve(null);

/** What it is, and why it cannot run the kernels: null where there is nothing to say. */
export async function findAdapter(): Promise<{ info: AdapterInfo | null; missing: GlobeError | null }> {
  const adapter = await request();
  return { info: adapter && describe(adapter), missing: fault(adapter) };
}

/** Why the adapter cannot run the kernels, or null. */
export async function lacking(): Promise<GlobeError | null> {
  return fault(await request());
}

function describe({ info, limits, features }: GPUAdapter): AdapterInfo {
  return {
    description: [info.vendor, info.architecture, info.description].filter(Boolean).join(' ') || 'graphics processor',
    f16: features.has('shader-f16'),
    subgroups: features.has('subgroups'),
    timestamps: features.has('timestamp-query'),
    maxBindingBytes: limits.maxStorageBufferBindingSize,
    maxBufferBytes: limits.maxBufferSize,
    storageBuffersPerStage: limits.maxStorageBuffersPerShaderStage,
  };
}

function fault(adapter: GPUAdapter | null): GlobeError | null {
  if (!navigator.gpu) return new GlobeError('NoWebGpu', 'this browser has no WebGPU; use a current Chrome, Edge, Firefox or Safari');
  if (!adapter) return new GlobeError('NoWebGpu', 'WebGPU finds no graphics processor here; check the graphics driver and the browser settings');
  // The runtime creates a query set with every stream and stops without this feature.
  if (!adapter.features.has('timestamp-query')) {
    return new GlobeError('MissingFeature', 'this graphics processor offers no `timestamp-query`, which the engine needs');
  }
  for (const [name, wanted] of Object.entries(NEEDED)) {
    const got = adapter.limits[name as keyof typeof NEEDED];
    if (got < wanted) return new GlobeError('MissingFeature', `this graphics processor allows ${name} of ${got}, the engine needs ${wanted}`);
  }
  return null;
}

/** Features that make kernels faster, and that wgpu does not ask for. */
const WANTED: GPUFeatureName[] = ['subgroups'];
let refused: readonly GPUFeatureName[] = [];

/** Leaves a feature out of every device from now on, to compare with the kernels that do without. */
export function refuse(features: readonly GPUFeatureName[]): void {
  refused = features;
}

/** Which of the wanted features devices will have. */
export async function granted(): Promise<GPUFeatureName[]> {
  const adapter = await request();
  return adapter ? wantedOf(adapter) : [];
}

function wantedOf(adapter: GPUAdapter): GPUFeatureName[] {
  return WANTED.filter((feature) => adapter.features.has(feature) && !refused.includes(feature));
}

/** Hears of every device that the engine opens: of its loss, and of errors nobody asked for. Adds the wanted features. */
export function watchDevices(kernels: Kernels, onLost: (reason: string) => void, onError: (error: GlobeError) => void): void {
  if (typeof GPUAdapter === 'undefined') return;
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (this: GPUAdapter, descriptor) {
    const requiredFeatures = [...new Set([...(descriptor?.requiredFeatures ?? []), ...wantedOf(this)])];
    const device = await requestDevice.call(this, { ...descriptor, requiredFeatures });
    kernels.serve(device);
    void device.lost.then(({ reason, message }) => onLost(message || reason));
    device.addEventListener('uncapturederror', (event) => {
      event.stopImmediatePropagation(); // the runtime, which listens as well, would end the whole module
      const { error } = event;
      const outOfMemory = typeof GPUOutOfMemoryError !== 'undefined' && error instanceof GPUOutOfMemoryError;
      onError(
        outOfMemory
          ? new GlobeError('DoesNotFit', 'the graphics processor ran out of memory; close other tabs, or use a smaller model or photo')
          : new GlobeError('Engine', `the graphics processor refused a command: ${error.message}`),
      );
    });
    return device;
  };
}
