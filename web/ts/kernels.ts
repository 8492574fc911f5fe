// The kernels of a device, each compiled once: when the engine asks for it, or before, because an earlier visit did.

/** The WGSL of kernels in the order of their first use: until the model was ready, and after that. */
export interface KernelList {
  start: string[];
  later: string[];
}

/** A list as it was kept, or none of what it holds. */
export function kernelList(kept: unknown): KernelList {
  const texts = (of: unknown): of is string[] => Array.isArray(of) && of.every((code) => typeof code === 'string');
  const { start, later } = (kept ?? {}) as Partial<KernelList>;
  return texts(start) && texts(later) ? { start, later } : { start: [], later: [] };
}

/** Compiles for the device of this worker. */
export class Kernels {
  private expected: KernelList = kernelList(null);
  private readonly asked = new Set<string>();
  private askedAtStart = 0;
  private compile: (codes: readonly string[]) => Promise<unknown> = async () => undefined;
  private compiling: Promise<unknown> = Promise.resolve();

  /** A device that is opened from now on compiles what the start needs beside whatever else it does. */
  expect(kernels: KernelList): void {
    this.expected = kernels;
  }

  /** Until all that is expected by now is compiled, or has failed to. */
  async compiled(): Promise<void> {
    await this.compiling;
  }

  /** The model is ready: what photos will need is compiled now. */
  started(): void {
    this.askedAtStart = this.asked.size;
    this.compiling = this.compile(this.expected.later);
  }

  /** What the engine asked for, if any of it was not expected. */
  news(): KernelList | null {
    const known = new Set([...this.expected.start, ...this.expected.later]);
    const asked = [...this.asked];
    if (asked.every((code) => known.has(code))) return null;
    return { start: asked.slice(0, this.askedAtStart), later: asked.slice(this.askedAtStart) };
  }

  /** The engine asks for a kernel where it launches it, and again where it records a step: both get the one that was compiled. */
  serve(device: GPUDevice): void {
    const plain = GPUDevice.prototype;
    const modules = new Map<string, GPUShaderModule>();
    const codes = new Map<GPUShaderModule, string>();
    const pipelines = new Map<GPUShaderModule, GPUComputePipeline>();
    device.createShaderModule = (descriptor) => {
      const { code } = descriptor;
      const module = modules.get(code) ?? plain.createShaderModule.call(device, descriptor);
      modules.set(code, module);
      codes.set(module, code);
      return module;
    };
    device.createComputePipeline = (descriptor) => {
      const { layout, compute: { module, entryPoint, constants } } = descriptor;
      const isOurs = layout === 'auto' && entryPoint === 'main' && Object.keys(constants ?? {}).length === 0;
      const pipeline = (isOurs && pipelines.get(module)) || plain.createComputePipeline.call(device, descriptor);
      if (isOurs) {
        const code = codes.get(module);
        if (code !== undefined) this.asked.add(code);
        pipelines.set(module, pipeline);
      }
      return pipeline;
    };
    // What compiled at an earlier visit may fail on another adapter: the engine hears of it if it asks.
    const compile = async (code: string) => {
      device.pushErrorScope('validation');
      const module = plain.createShaderModule.call(device, { code });
      const fault = device.popErrorScope();
      const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } });
      if ((await fault) || modules.has(code)) return;
      modules.set(code, module);
      pipelines.set(module, pipeline);
    };
    this.compile = (codes) => Promise.allSettled(codes.map(compile));
    this.compiling = this.compile(this.expected.start);
  }
}
