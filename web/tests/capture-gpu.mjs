// What the engine asks of the graphics processor, kept so that plain WebGPU calls can ask for it again.

/**
 * Runs in the worker, before the engine opens its device. `globalThis.captured` then has the programs and their texts in
 * the order in which pipelines were made, and the dispatches of the last submissions.
 */
export function captureGpu() {
  const KEPT = 8;
  const captured = (globalThis.captured = { device: null, programs: [], texts: [], submissions: [], submitted: 0, buffers: 0 });
  const sources = new WeakMap();
  const wrap = (type, name, hear) => {
    const { [name]: plain } = type.prototype;
    type.prototype[name] = function (...args) {
      const result = plain.apply(this, args);
      hear.call(this, result, ...args);
      return result;
    };
  };
  const pipelines = new WeakMap();
  wrap(GPUDevice, 'createShaderModule', function (module, { code }) {
    captured.device = this;
    sources.set(module, code);
  });
  const made = (pipeline, { compute }) => {
    // A program opens with what it computes; the device's own fills and copies open otherwise.
    const text = sources.get(compute.module);
    captured.texts.push(text);
    const [line] = text.replace(/^enable .*\n/gm, '').split('\n');
    captured.programs.push(line);
    pipelines.set(pipeline, line);
  };
  wrap(GPUDevice, 'createComputePipeline', made);
  wrap(GPUDevice, 'createBuffer', () => void captured.buffers++);
  const passes = new WeakMap();
  wrap(GPUCommandEncoder, 'beginComputePass', function (pass) {
    const list = passes.get(this) ?? [];
    passes.set(this, list);
    passes.set(pass, { list, pipeline: null, groups: [] });
  });
  wrap(GPUComputePassEncoder, 'setPipeline', function (_, pipeline) {
    passes.get(this).pipeline = pipeline;
  });
  wrap(GPUComputePassEncoder, 'setBindGroup', function (_, index, group) {
    passes.get(this).groups[index] = group;
  });
  wrap(GPUComputePassEncoder, 'dispatchWorkgroups', function (_, ...counts) {
    const { list, pipeline, groups } = passes.get(this);
    list.push({ program: pipelines.get(pipeline), pipeline, groups: [...groups], counts });
  });
  wrap(GPUCommandEncoder, 'finish', function (buffer) {
    passes.set(buffer, passes.get(this) ?? []);
  });
  wrap(GPUQueue, 'submit', (_, buffers) => {
    captured.submitted += 1;
    captured.submissions.push([...buffers].flatMap((buffer) => passes.get(buffer) ?? []));
    captured.submissions.splice(0, captured.submissions.length - KEPT);
  });

  /** The dispatches of one step, and how many steps share a submission. */
  captured.step = () => {
    // Submissions of an answer's end hold other work; those before it are steps, all alike.
    const counts = captured.submissions.map(({ length }) => length).filter(Boolean).sort((a, b) => a - b);
    const usual = counts[Math.floor(counts.length / 2)];
    const all = captured.submissions.findLast(({ length }) => length === usual);
    const isStep = (n) => all.length % n === 0 && all.every(({ groups }, i) => i < n || groups[0] === all[i - n].groups[0]);
    const n = all.findIndex((_, i) => isStep(i + 1)) + 1;
    return { dispatches: all.slice(0, n), together: all.length / n };
  };

  /** Issues dispatches `times` times, `together` times in each pass and submission, and waits for the last; milliseconds. */
  captured.again = async (dispatches, times, together = 1) => {
    const { device } = captured;
    await device.queue.onSubmittedWorkDone();
    const begin = performance.now();
    for (let i = 0; i < times; i += together) {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      for (const { pipeline, groups, counts } of Array(Math.min(together, times - i)).fill(dispatches).flat()) {
        pass.setPipeline(pipeline);
        for (const [index, group] of groups.entries()) if (group) pass.setBindGroup(index, group);
        pass.dispatchWorkgroups(...counts);
      }
      pass.end();
      device.queue.submit([encoder.finish()]);
    }
    await device.queue.onSubmittedWorkDone();
    return performance.now() - begin;
  };
}
