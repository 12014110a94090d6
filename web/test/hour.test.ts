// What a page keeps while it is open for long: an hour of a busy node's updates in a minute, and all screens again and again.
import type { Browser, CDPSession, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { busy, watched, type Busy } from './support/busy'
import { go, launch, tab, type Tab } from './support/browser'
import { serve, type Site } from './support/site'

const speed = 60

let browser: Browser
let site: Site
let node: Busy

beforeAll(async () => {
  node = busy()
  ;[browser, site] = await Promise.all([launch(), serve(node.handler)])
})
afterAll(async () => {
  await browser?.close()
  await site?.close()
})

interface Kept {
  heap: number
  nodes: number
  listeners: number
}

/** What the page holds once all that nobody needs is gone. */
async function kept(cdp: CDPSession): Promise<Kept> {
  for (let i = 0; i < 3; i++) await cdp.send('HeapProfiler.collectGarbage')
  const { metrics } = await cdp.send('Performance.getMetrics')
  const of = (name: string) => metrics.find((m) => m.name === name)?.value ?? NaN
  return { heap: of('JSHeapUsedSize'), nodes: of('Nodes'), listeners: of('JSEventListeners') }
}

async function watch(page: Page): Promise<CDPSession> {
  const cdp = await page.context().newCDPSession(page)
  await cdp.send('HeapProfiler.enable')
  await cdp.send('Performance.enable')
  return cdp
}

const said = (name: string, samples: Kept[]) =>
  `${name}: heap ${samples.map((k) => (k.heap / 1e6).toFixed(2)).join(', ')} MB; nodes ${samples.map((k) => k.nodes).join(', ')}; listeners ${samples.map((k) => k.listeners).join(', ')}`

/** The least of the later samples beside the most of the earlier ones: one that caught an answer half read does not count, a leak does. */
function growth(samples: Kept[]): Kept {
  const half = Math.ceil(samples.length / 2)
  const of = (k: keyof Kept) => Math.min(...samples.slice(half).map((s) => s[k])) - Math.max(...samples.slice(0, half).map((s) => s[k]))
  return { heap: of('heap'), nodes: of('nodes'), listeners: of('listeners') }
}

/** Timers and clock of the page go so many times as fast. */
const hasten = (by: number) => {
  const [begin, real] = [Date.now(), Date.now.bind(Date)]
  Date.now = () => begin + (real() - begin) * by
  for (const name of ['setTimeout', 'setInterval'] as const) {
    const original = window[name].bind(window) as (f: TimerHandler, ms?: number, ...rest: unknown[]) => number
    Object.assign(window, { [name]: (f: TimerHandler, ms = 0, ...rest: unknown[]) => original(f, ms / by, ...rest) })
  }
}

test('an hour of a busy node in a minute: nothing grows', async () => {
  const screens = [
    ['overview', 'Overview'],
    ['tasks', 'Tasks'],
    [`tasks/${watched}`, /Task/],
  ] as const
  const open: { name: string; t: Tab; cdp: CDPSession; samples: Kept[] }[] = []
  for (const [path, heading] of screens) {
    const t = await tab(browser)
    await t.page.addInitScript(hasten, speed)
    await t.page.goto(`${site.url}/#/${path}`)
    await t.page.getByRole('heading', { level: 1, name: heading }).waitFor()
    open.push({ name: path.slice(0, 10), t, cdp: await watch(t.page), samples: [] })
  }
  const begun = performance.now()
  for (const minute of [20, 28, 36, 44, 52, 60]) {
    await node.until(minute * 60, 1000 / speed)
    for (const o of open) o.samples.push(await kept(o.cdp))
  }
  console.log(
    `the hour took ${Math.round((performance.now() - begun) / 1000)} s, with ${node.told()} messages of tasks; asked: ${[...node.asked].map(([p, n]) => `${p} ${n}`).join(', ')}`,
  )
  for (const o of open) console.log(said(o.name, o.samples))
  for (const o of open) {
    const g = growth(o.samples)
    expect(g.heap, o.name).toBeLessThan(300_000)
    expect(g.nodes, o.name).toBeLessThan(100)
    expect(g.listeners, o.name).toBeLessThan(20)
    expect(o.t.wrong).toEqual([])
  }
  // What came was shown, and what is old was let go.
  const [, tasks, task] = open
  const rows = Number(await tasks?.t.page.getByRole('table', { name: 'Tasks' }).getAttribute('aria-rowcount'))
  expect(rows).toBeGreaterThan(1000)
  expect(rows).toBeLessThan(2100)
  await task?.t.page.getByText('The beginning is not shown').waitFor()
  for (const path of ['/v1/node', '/v1/tasks', '/v1/node/history', `/v1/tasks/${watched}`])
    expect(node.asked.get(path), path).toBeGreaterThan(50)
  for (const o of open) await o.t.close()
}, 600_000)

test('all screens, again and again: nothing of those that were left is kept', async () => {
  const t = await tab(browser)
  await t.page.goto(`${site.url}/#/overview`)
  const cdp = await watch(t.page)
  const samples: Kept[] = []
  for (let round = 0; round < 6; round++) {
    for (const [path, heading] of [
      ['tasks', 'Tasks'],
      ['tasks/new', 'New task'],
      [`tasks/${watched}`, /Task/],
      ['jobs', 'Jobs'],
      ['jobs/job', /./],
      ['network', 'Network'],
      ['network/peer-1', /Peer/],
      ['content', 'Content'],
      ['settings', 'Settings'],
      ['overview', 'Overview'],
    ] as const) {
      await go(t.page, path, heading)
      await expect.poll(() => t.page.locator('[aria-busy=true]').count()).toBe(0)
    }
    if (round > 1) samples.push(await kept(cdp))
  }
  console.log(said('rounds', samples))
  const g = growth(samples)
  expect(g.heap).toBeLessThan(200_000)
  expect(g.nodes).toBeLessThan(100)
  expect(g.listeners).toBeLessThan(20)
  expect(t.wrong).toEqual([])
  await t.close()
})
