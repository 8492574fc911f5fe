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

/** Of all living processes below this one, in milliseconds: the browser and its parts. */
export function treeMs() {
  const all = new Map();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const fields = stat(pid);
    if (fields) all.set(Number(pid), fields);
  }
  const isBelow = (pid) => pid === process.pid || (all.has(pid) && isBelow(Number(all.get(pid)[1])));
  return [...all].reduce((sum, [pid, fields]) => sum + (pid !== process.pid && isBelow(pid) ? own(fields) : 0), 0);
}

/** Of the children that ended, and theirs. */
export function childrenMs() {
  const fields = stat(process.pid);
  return (Number(fields[13]) + Number(fields[14])) * TICK_MS;
}
