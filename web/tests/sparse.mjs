// A packed model of the published sizes without its weights: a manifest, and shards that are made while they are read.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { GOLDEN } from './browser.mjs';

const BLOCK = 32;
const ALIGN = 256;
const PART_BYTES = 128 << 20;
const SHARD_BYTES = 512 << 20;
/** Words and scales of a block, bytes. */
const FORMATS = { q4: [16, 2], q8: [32, 2] };
/** Tokenizer and template come from a committed checkpoint: a larger table may hold more than they name. */
const SMALL_FILES = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'preprocessor_config.json', 'generation_config.json'];

/** `config.json` of Qwen2.5-VL-7B with as many layers and blocks as asked for; with few, one large table is enough. */
function config(layers, blocks) {
  const tied = layers < 28;
  const small = JSON.parse(readFileSync(join(GOLDEN, 'untied/config.json'), 'utf8'));
  return {
    ...small,
    tie_word_embeddings: tied,
    text_config: {
      ...small.text_config, tie_word_embeddings: tied, hidden_size: 3584, intermediate_size: 18944, num_attention_heads: 28, num_key_value_heads: 4, num_hidden_layers: layers, vocab_size: 152064,
      layer_types: Array(layers).fill('full_attention'), rope_parameters: { mrope_section: [16, 24, 24], rope_theta: 1e6, rope_type: 'default' },
    },
    vision_config: {
      ...small.vision_config, hidden_size: 1280, intermediate_size: 3420, num_heads: 16, out_hidden_size: 3584, depth: blocks, fullatt_block_indexes: [blocks - 1],
    },
  };
}

/** Names and shapes as the packer lays them out; the engine refuses a manifest that differs from its own list. */
function shapes({ text_config: text, vision_config: vision }) {
  const whole = (n) => Math.ceil(n / BLOCK) * BLOCK;
  const [h, f] = [vision.hidden_size, whole(vision.intermediate_size)];
  const merged = 4 * h;
  const list = [['visual.patch_embed.proj.weight', h, 3 * 2 * 14 * 14]];
  for (let i = 0; i < vision.depth; i++) {
    const at = (name) => `visual.blocks.${i}.${name}`;
    list.push(
      [at('norm1.weight'), h], [at('norm2.weight'), h], [at('attn.qkv.weight'), 3 * h, h], [at('attn.qkv.bias'), 3 * h], [at('attn.proj.weight'), h, h],
      [at('attn.proj.bias'), h], [at('mlp.gate_up.weight'), 2 * f, h], [at('mlp.gate_up.bias'), 2 * f], [at('mlp.down_proj.weight'), h, f], [at('mlp.down_proj.bias'), h],
    );
  }
  const out = vision.out_hidden_size;
  const merger = (name) => `visual.merger.${name}`;
  list.push([merger('ln_q.weight'), h], [merger('mlp.0.weight'), merged, merged], [merger('mlp.0.bias'), merged], [merger('mlp.2.weight'), out, merged], [merger('mlp.2.bias'), out]);
  const [hidden, ffn] = [text.hidden_size, whole(text.intermediate_size)];
  const qkv = hidden + (2 * hidden * text.num_key_value_heads) / text.num_attention_heads;
  list.push(['model.embed_tokens.weight', text.vocab_size, hidden]);
  for (let i = 0; i < text.num_hidden_layers; i++) {
    const at = (name) => `model.layers.${i}.${name}`;
    list.push(
      [at('input_layernorm.weight'), hidden], [at('self_attn.qkv.weight'), qkv, hidden], [at('self_attn.qkv.bias'), qkv], [at('self_attn.o_proj.weight'), hidden, hidden],
      [at('post_attention_layernorm.weight'), hidden], [at('mlp.gate_up.weight'), 2 * ffn, hidden], [at('mlp.down_proj.weight'), hidden, ffn],
    );
  }
  list.push(['model.norm.weight', hidden]);
  if (!text.tie_word_embeddings) list.push(['lm_head.weight', text.vocab_size, hidden]);
  return list;
}

/** Places of every array in the virtual one, and its size. */
function layout(shapes) {
  let end = 0;
  const take = (size) => {
    const offset = end;
    end = Math.ceil((offset + size) / ALIGN) * ALIGN;
    return { offset, size };
  };
  const tensors = shapes.map(([name, rows, cols]) => {
    if (cols === undefined) return { name, format: 'f32', shape: [rows], parts: [{ first_row: 0, rows, words: take(4 * rows) }] };
    const format = name.startsWith('visual.') ? 'q8' : 'q4';
    const [words, scales] = FORMATS[format];
    const blocks = Math.ceil(cols / BLOCK);
    const most = Math.floor(PART_BYTES / (blocks * words));
    const parts = [];
    for (let first = 0; first < rows; first += most) {
      const n = Math.min(most, rows - first);
      parts.push({ first_row: first, rows: n, words: take(n * blocks * words), scales: take(n * Math.ceil(blocks / 8) * 8 * scales) });
    }
    return { name, format, shape: [rows, cols], parts };
  });
  return { tensors, total: end };
}

/** Bytes of a shard, without an end: no two shards are equal, so that none passes for another. */
function* bytesFrom(shard, start) {
  const pattern = Buffer.alloc(1 << 20, createHash('sha512').update(`shard ${shard}`).digest());
  yield pattern.subarray(start % pattern.length);
  for (;;) yield pattern;
}

/** Chunks of the bytes `start .. end` of a shard. */
function* slice(shard, start, end) {
  for (const chunk of bytesFrom(shard, start)) {
    if (start >= end) return;
    yield chunk.subarray(0, end - start);
    start += chunk.length;
  }
}

/** The manifest and the files of a model with `layers` layers of text and `blocks` of vision. */
export function sparseModel(layers, blocks) {
  const configured = config(layers, blocks);
  const files = { 'config.json': Buffer.from(JSON.stringify(configured)) };
  for (const name of SMALL_FILES) files[name] = readFileSync(join(GOLDEN, 'untied', name));
  const { tensors, total } = layout(shapes(configured));
  const [shards, whole] = [[], createHash('sha256')];
  for (let start = 0; start < total; start += SHARD_BYTES) {
    const [size, hash] = [Math.min(SHARD_BYTES, total - start), createHash('sha256')];
    for (const chunk of slice(shards.length, 0, size)) {
      hash.update(chunk);
      whole.update(chunk);
    }
    shards.push({ name: `model-${shards.length + 1}.bin`, size, sha256: hash.digest('hex') });
  }
  const listed = Object.entries(files).map(([name, bytes]) => ({ name, size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') }));
  const manifest = {
    format: 'globe-packed', version: 1, architecture: 'qwen2_5_vl', bits: 4, vision_bits: 8, source: { inputs: [], adapter: [] },
    shard_bytes: SHARD_BYTES, total_bytes: total, shards, sha256: whole.digest('hex'), files: listed, tensors,
  };
  return { manifest, files: { ...files, 'manifest.json': Buffer.from(JSON.stringify(manifest)) } };
}

/** Lets a test server answer for the model under `path`. */
export function serveSparse(server, path, { manifest, files }) {
  for (const [name, bytes] of Object.entries(files)) server.files[path + name] = bytes;
  for (const [index, { name, size }] of manifest.shards.entries()) {
    server.files[path + name] = Buffer.alloc(0);
    server.faults[path + name] = (_, request, response) => {
      const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      const range = start > 0 ? { 'content-range': `bytes ${start}-${size - 1}/${size}` } : {};
      response.writeHead(start > 0 ? 206 : 200, { 'content-type': 'application/octet-stream', 'content-length': size - start, ...range });
      const chunks = slice(index, start, size);
      const more = () => {
        for (;;) {
          const { value, done } = chunks.next();
          if (done) return void response.end();
          if (!response.write(value)) return void response.once('drain', more);
        }
      };
      more();
      return null;
    };
  }
}
