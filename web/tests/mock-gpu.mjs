// A graphics processor that takes every byte and computes nothing, for models that no test machine has room for.

/**
 * Runs in the worker, before the engine opens its device. Buffers above a MiB are made small, what is written to them is
 * counted and dropped, and nothing is submitted; what is read back is zeros.
 */
export function mockUploads() {
  const CAP = 1 << 20;
  const counts = (globalThis.uploads = { written: 0, created: 0, largestWrite: 0 });
  const sizes = new WeakMap();
  const device = GPUDevice.prototype;
  const { createBuffer, createBindGroup } = device;
  device.createBuffer = function (descriptor) {
    const capped = descriptor.size > CAP && (descriptor.usage & GPUBufferUsage.STORAGE) !== 0;
    const buffer = createBuffer.call(this, capped ? { ...descriptor, size: CAP } : descriptor);
    counts.created += descriptor.size;
    if (capped) sizes.set(buffer, descriptor.size);
    return buffer;
  };
  device.createBindGroup = function (descriptor) {
    const entries = [...descriptor.entries].map((entry) => {
      const { buffer, size } = entry.resource;
      return buffer && sizes.has(buffer) ? { ...entry, resource: { buffer, offset: 0, size: Math.min(size ?? CAP, CAP) } } : entry;
    });
    return createBindGroup.call(this, { ...descriptor, entries });
  };
  GPUQueue.prototype.writeBuffer = function (buffer, offset, data, start = 0, size = data.byteLength - start) {
    counts.written += size;
    counts.largestWrite = Math.max(counts.largestWrite, size);
  };
  GPUQueue.prototype.submit = function () {};
  for (const name of ['copyBufferToBuffer', 'clearBuffer']) GPUCommandEncoder.prototype[name] = function () {};
}
