// Puts the demo site together: the page, the package, and a service worker that knows every file of both.
//
// node scripts/site.mjs [FOLDER]

import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';

const web = join(import.meta.dirname, '..');
const site = process.argv[2] ?? join(web, 'site');

rmSync(site, { recursive: true, force: true });
mkdirSync(site, { recursive: true });
cpSync(join(web, 'demo'), site, { recursive: true });
cpSync(join(web, 'dist'), join(site, 'globe'), {
  recursive: true,
  filter: (path) => !path.endsWith('sw.js') && !path.includes(join('dist', 'types')),
});

const files = (folder) =>
  readdirSync(folder).sort().flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
const paths = files(site);
const digest = createHash('sha256');
for (const path of paths) digest.update(relative(site, path)).update(readFileSync(path));
const shell = ['./', ...paths.map((path) => relative(site, path).replaceAll('\\', '/'))];
const worker = readFileSync(join(web, 'dist/sw.js'), 'utf8')
  .replace('__SHELL__', shell.join('|'))
  .replace('__VERSION__', digest.digest('hex').slice(0, 16));
const awkward = shell.filter((path) => /[|"'`\\\n]/.test(path));
if (awkward.length > 0) throw new Error(`names that do not fit into a list: ${awkward.join(' ')}`);
if (worker.includes('__SHELL__') || !worker.includes('globe/element.js')) throw new Error('dist/sw.js has no place for the list of files');
writeFileSync(join(site, 'sw.js'), worker);
console.log(`${shell.length} files in ${site}`);
