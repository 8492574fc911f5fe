// Writes files.json beside a model in the Hugging Face layout, so that a page can verify and keep it.
//
// node scripts/list-files.mjs MODEL_FOLDER [OUT_FOLDER]   (copies the files when OUT_FOLDER is another one)

import { createHash } from 'node:crypto';
import { copyFileSync, createReadStream, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const WANTED = /^(config|tokenizer|tokenizer_config|generation_config|preprocessor_config|processor_config|chat_template)\.json$|^chat_template\.jinja$|^model.*\.safetensors(\.index\.json)?$/;

/** The manifest of a folder; files that no loader reads are left out. */
export async function listFiles(folder, out = folder) {
  mkdirSync(out, { recursive: true });
  const files = [];
  for (const name of readdirSync(folder).filter((name) => WANTED.test(name)).sort()) {
    const path = join(folder, name);
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(path)) hash.update(chunk);
    files.push({ name, size: statSync(path).size, sha256: hash.digest('hex') });
    if (out !== folder) copyFileSync(path, join(out, name));
  }
  const manifest = { format: 'globe-files', version: 1, files };
  writeFileSync(join(out, 'files.json'), `${JSON.stringify(manifest, null, 1)}\n`);
  return manifest;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [folder, out] = process.argv.slice(2);
  if (!folder) throw new Error('usage: node scripts/list-files.mjs MODEL_FOLDER [OUT_FOLDER]');
  const { files } = await listFiles(folder, out);
  console.log(`${files.length} files`);
}
