// `make screenshots`: pictures of all screens, before real nodes where they have enough to show, else before the REST server of the tests.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { go, launch, signedIn, tab } from '../support/browser'
import { fake } from '../support/fake'
import { examples, type Network, reach } from '../support/network'
import { serve } from '../support/site'

const out = process.env['SHALLOT_SCREENSHOTS'] ?? ''
const looks = (['light', 'dark'] as const).flatMap((colorScheme) => [360, 1280, 1920].map((width) => ({ colorScheme, width })))
const viewport = (width: number) => ({ width, height: width < 500 ? 780 : width > 1900 ? 1080 : 860 })

describe.runIf(out !== '')('pictures', () => {
  let browser: Browser
  let net: Network
  beforeAll(async () => {
    mkdirSync(out, { recursive: true })
    net = reach(inject('nodes'))
    browser = await launch()
  })
  afterAll(async () => {
    await browser?.close()
  })

  test('of real nodes', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'web-'))
    for (let i = 0; i < 40; i++) writeFileSync(join(folder, `chapter-${i}.md`), `the onion and the shallot, ${i}`)
    const program = join(examples, 'wordcount.wasm')
    await net.run('map', 'wasm', program, '--inputs', join(folder, '*.md'), '--output', join(folder, 'out'))
    await net.run('content', 'put', join(folder, 'chapter-1.md'))
    for (let i = 0; i < 12; i++) await net.run('run', 'sum', '0.1', String(i))
    const one = ['run', 'wasm', program, '--stdin', join(folder, 'chapter-1.md')]
    await net.run(...one, '--output-limit', '16').catch(() => undefined) // one that has failed
    await net.run(...one)
    const rest = async (path: string) =>
      (await (await fetch(net.consumer.url + path, { headers: { authorization: `Bearer ${net.consumer.token}` } })).json()) as Record<
        string,
        { id: string; peer_id: string }[]
      >
    const job = (await rest('/v1/jobs'))['jobs']?.[0]?.id
    const task = (await rest('/v1/tasks?type=wasm'))['tasks']?.[0]?.id
    const peer = (await rest('/v1/peers'))['peers']?.[0]?.peer_id
    for (const { colorScheme, width } of looks) {
      const t = await signedIn(browser, net.consumer, { colorScheme, viewport: viewport(width) })
      for (const [name, path, heading] of [
        ['overview', 'overview', 'Overview'],
        ['tasks', 'tasks', 'Tasks'],
        ['new-task', 'tasks/new', 'New task'],
        ['new-job', 'jobs/new', 'New job'],
        ['task', `tasks/${task}`, /Task/],
        ['jobs', 'jobs', 'Jobs'],
        ['job', `jobs/${job}`, /wordcount/],
        ['network', 'network', 'Network'],
        ['peer', `network/${peer}`, /Peer/],
        ['content', 'content', 'Content'],
        ['settings', 'settings', 'Settings'],
      ] as const) {
        await go(t.page, path, heading)
        await expect.poll(() => t.page.locator('[aria-busy=true]').count(), { timeout: 60_000 }).toBe(0)
        await t.page.screenshot({ path: join(out, `${name}-${width}-${colorScheme}.png`) })
      }
      expect(t.wrong).toEqual([])
      await t.close()
    }
    rmSync(folder, { recursive: true })
  }, 900_000)

  test('of a network of 130 nodes, a job and a day', async () => {
    const site = await serve(fake({ tasks: 10_000, peers: 130, shards: 3000, anonymous: false }))
    for (const { colorScheme, width } of looks) {
      const t = await tab(browser, { colorScheme, viewport: viewport(width) })
      for (const [name, path] of [
        ['many-overview', 'overview'],
        ['many-tasks', 'tasks'],
        ['many-job', 'jobs/job'],
        ['many-network', 'network'],
        ['many-settings', 'settings'],
      ] as const) {
        await t.page.goto(`${site.url}/#/${path}`)
        await t.page.getByRole('heading', { level: 1 }).waitFor()
        await expect.poll(() => t.page.locator('[aria-busy=true]').count(), { timeout: 60_000 }).toBe(0)
        if (name === 'many-job') await t.page.getByText('2258 shards').or(t.page.getByText('2\u202f258 shards')).waitFor()
        await t.page.screenshot({ path: join(out, `${name}-${width}-${colorScheme}.png`) })
      }
      await t.close()
    }
    await site.close()
  }, 900_000)
})
