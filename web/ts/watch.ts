// Watches over a load: a worker that answers while nothing moves is ended, and the load begun anew.

import { GlobeError } from './errors.js';
import type { Beat } from './messages.js';
import type { Progress } from './types.js';

/** A load may stand still this long, ms, unless the caller says otherwise. */
export const STALL_MS = 30_000;

/** So often a load is begun anew without getting further than before. */
export const RESTARTS = 2;

const BEAT_MS = 1000;

/**
 * Asks a worker for its beat, one at a time, and calls `stalled` after `limitMs` of answers in which nothing moved.
 * A busy worker does not answer and one of a sleeping tab is not asked: neither counts as standing still.
 */
export class Watch {
  private readonly everyMs: number;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private moved = -1;
  private stillMs = 0;

  constructor(private readonly ask: () => void, private readonly limitMs: number, private readonly stalled: (reason: GlobeError) => void) {
    this.everyMs = Math.min(BEAT_MS, limitMs / 10);
    ask();
  }

  heard({ moved, watched }: Beat): void {
    this.stillMs = watched && moved === this.moved ? this.stillMs + this.everyMs : 0;
    this.moved = moved;
    if (this.stillMs >= this.limitMs) this.stalled(stalled(this.limitMs));
    else this.timer = setTimeout(this.ask, this.everyMs);
  }

  end(): void {
    clearTimeout(this.timer);
  }
}

function stalled(ms: number): GlobeError {
  const text = `the load stood still for ${ms / 1000} s, and again whenever it was begun anew; check the connection, close other tabs that load this model, and try again: what has arrived is kept`;
  return new GlobeError('Stalled', text);
}

const STAGES: Progress['stage'][] = ['verify', 'fetch', 'upload', 'compile'];

/** How far a load has come, over all its beginnings. */
export class Furthest {
  private stage = -1;
  private done = 0;
  private further = false;

  note({ stage, done }: Progress): void {
    const at = STAGES.indexOf(stage);
    if (at < this.stage || (at === this.stage && done <= this.done)) return;
    [this.stage, this.done, this.further] = [at, done, true];
  }

  /** Whether it got further since the last call. */
  grew(): boolean {
    const { further } = this;
    this.further = false;
    return further;
  }
}
