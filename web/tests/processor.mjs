// Processor time, as Linux counts it: unlike a clock, it hardly depends on what else runs.

import { readFileSync, readdirSync } from 'node:fs';

/** The kernel's clock tick, which no Linux of today changes. */
const TICK_MS = 10;

/** Fields of /proc/PID/stat from the state on; null if the process is gone. */
function stat(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return null;
  }
}

const own = (fields) => (Number(fields[11]) + Number(fields[12])) * TICK_MS;

/** All living processes below this one with their fields: the browser and its parts. */
function tree() {
  const all = new Map();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const fields = stat(pid);
    if (fields) all.set(Number(pid), fields);
  }
  const isBelow = (pid) => pid === process.pid || (all.has(pid) && isBelow(Number(all.get(pid)[1])));
  return [...all].filter(([pid]) => pid !== process.pid && isBelow(pid));
}

/** Processor time of the tree, in milliseconds. */
export const treeMs = () => tree().reduce((sum, [, fields]) => sum + own(fields), 0);

/** What the tree's processes hold for themselves alone, in bytes. */
export function treeBytes() {
  const held = (pid) => {
    try {
      const text = readFileSync(`/proc/${pid}/status`, 'utf8');
      return 1024 * Number(/^RssAnon:\s+(\d+)/m.exec(text)?.[1] ?? 0);
    } catch {
      return 0; // it ended
    }
  };
  return tree().reduce((sum, [pid]) => sum + held(pid), 0);
}

/** Of the children that ended, and theirs. */
export function childrenMs() {
  const fields = stat(process.pid);
  return (Number(fields[13]) + Number(fields[14])) * TICK_MS;
}
