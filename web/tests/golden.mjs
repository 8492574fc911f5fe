// The committed checkpoints and what transformers computed with them.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { GOLDEN } from './browser.mjs';

/** Facts and expected tensors of one checkpoint. */
export async function golden(name) {
  const facts = JSON.parse(await readFile(join(GOLDEN, name, 'golden.json'), 'utf8'));
  const bytes = await readFile(join(GOLDEN, name, 'golden.safetensors'));
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  const tensor = (wanted) => {
    const { dtype, data_offsets: [start, end] } = header[wanted];
    const data = bytes.buffer.slice(bytes.byteOffset + 8 + length + start, bytes.byteOffset + 8 + length + end);
    const array = { F32: Float32Array, I32: Int32Array }[dtype];
    if (!array) throw new Error(`${wanted}: ${dtype}`);
    return Array.from(new array(data));
  };
  return { facts, tensor };
}
