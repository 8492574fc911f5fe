// The native binary, which the tab is compared with.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** Runs `globe` with these arguments; answers with what it printed. */
export const native = (...args) => nativeIn({}, ...args);

/** The same with more environment variables. */
export async function nativeIn(variables, ...args) {
  const program = process.env.GLOBE;
  if (!program) throw new Error('name the native globe in the variable GLOBE, as `cargo xtask web test` does');
  // `globe locate` ends with 3 where no answer names a known place, as random weights do.
  const run = promisify(execFile)(program, args, { env: { ...process.env, ...variables }, maxBuffer: 64 << 20 });
  const { stdout } = await run.catch((error) => {
    if (error.code === 3) return error;
    throw error;
  });
  return stdout;
}
