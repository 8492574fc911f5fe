// What Chromium's own tracing says of a page's main thread.

const MARK = 'traced page';

/**
 * Tasks of the page's main thread while `work` runs: `begin`, `wallMs` and `cpuMs` each. Only the second says what
 * the page itself did: other processes share the machine's cores, and a software GPU takes all of them.
 */
export async function mainThreadTasks(browser, page, work) {
  const session = await browser.newBrowserCDPSession();
  const events = [];
  session.on('Tracing.dataCollected', ({ value }) => events.push(...value));
  const categories = { includedCategories: ['toplevel', 'blink.user_timing'], excludedCategories: ['*'] };
  await session.send('Tracing.start', { transferMode: 'ReportEvents', traceConfig: categories });
  await work();
  await page.evaluate((mark) => performance.mark(mark), MARK);
  const complete = new Promise((done) => session.once('Tracing.tracingComplete', done));
  await session.send('Tracing.end');
  await complete;
  await session.detach();
  const mark = events.find(({ name }) => name === MARK);
  if (!mark) throw new Error('the trace does not show the page');
  const tasks = events.filter(({ name, pid, tid }) => name === 'ThreadControllerImpl::RunTask' && pid === mark.pid && tid === mark.tid);
  const first = Math.min(...events.map(({ ts }) => ts).filter((ts) => ts > 0));
  return tasks.map(({ ts, dur, tdur }) => ({ begin: Math.round((ts - first) / 1000), wallMs: dur / 1000, cpuMs: tdur / 1000 }));
}

export const longest = (tasks, by) => tasks.reduce((max, task) => (task[by] > max[by] ? task : max), tasks[0]);
