// By keyboard alone, by what reads a screen aloud, in each width and look.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { axe, go, signedIn } from '../support/browser'
import { examples } from '../support/network'
import { real } from '../support/real'

const here = real()

test('everything is reached by keyboard, and nothing holds it', async () => {
  for (const n of ['1', '2']) await here.submit({ type: 'sum', sum: { addends: [n] } })
  await here.page.keyboard.press('?')
  await here.page.getByRole('dialog').waitFor()
  await here.page.keyboard.press('Escape')
  await expect.poll(() => here.page.getByRole('dialog').count()).toBe(0)
  await here.page.keyboard.press('g')
  await here.page.keyboard.press('t')
  await here.page.getByRole('heading', { name: 'Tasks' }).waitFor()
  await here.page.locator('[data-row]').nth(1).waitFor()
  await here.page.keyboard.press('/')
  expect(await here.page.evaluate(() => document.activeElement?.getAttribute('aria-label'))).toBe('Text')
  await here.page.keyboard.press('Escape')
  await here.page.locator('[data-row] a').first().focus()
  await here.page.keyboard.press('ArrowDown')
  await expect.poll(() => here.page.evaluate(() => document.activeElement?.closest('[data-row]')?.getAttribute('data-row'))).toBe('1')
  await here.page.keyboard.press('Enter')
  await here.page.getByRole('heading', { name: /^Task / }).waitFor()
  for (const [path, heading] of [
    ['overview', 'Overview'],
    ['tasks', 'Tasks'],
    ['tasks/new', 'New task'],
    ['jobs/new', 'New job'],
    ['network', 'Network'],
    ['content', 'Content'],
    ['settings', 'Settings'],
  ] as const) {
    await go(here.page, path, heading)
    await here.page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur())
    const seen: string[] = []
    for (let i = 0; i < 90; i++) {
      await here.page.keyboard.press('Tab')
      const at = await here.page.evaluate(() => {
        const e = document.activeElement
        return e === document.body || e === null
          ? 'body'
          : `${e.tagName} ${e.id} ${e.getAttribute('aria-label') ?? ''} ${e.textContent?.trim().slice(0, 30)} ${e.getAttribute('href') ?? ''}`
      })
      if (at === 'body' || (i > 3 && at === seen[0])) break
      seen.push(at)
    }
    expect(seen.length, path).toBeGreaterThan(3)
    expect(seen.length, `${path} holds the keyboard: ${seen.slice(-3).join(' | ')}`).toBeLessThan(90)
  }
})

test.each([
  ['light', 1280],
  ['dark', 1280],
  ['light', 360],
  ['dark', 360],
] as const)('axe-core finds nothing on any screen, %s and %i wide', async (colorScheme, width) => {
  const { id: task } = await here.submit({ type: 'sum', sum: { addends: ['1'] } })
  const job = await here.job('looked at', { module: readFileSync(join(examples, 'wordcount.wasm')), shards: 3 })
  const { peers } = await here.rest<{ peers: { peer_id: string }[] }>('/v1/peers')
  const own = await signedIn(here.browser, here.net.consumer, { colorScheme, viewport: { width, height: 800 } })
  const found: string[] = []
  for (const [path, heading] of [
    ['overview', 'Overview'],
    ['tasks', 'Tasks'],
    ['tasks/new', 'New task'],
    [`tasks/${task}`, /Task/],
    ['jobs', 'Jobs'],
    ['jobs/new', 'New job'],
    [`jobs/${job}`, 'looked at'],
    ['network', 'Network'],
    [`network/${peers[0]?.peer_id}`, /Peer/],
    ['content', 'Content'],
    ['settings', 'Settings'],
  ] as const) {
    await go(own.page, path, heading)
    await expect.poll(() => own.page.locator('[aria-busy=true]').count(), { timeout: 60_000 }).toBe(0)
    found.push(...(await axe(own.page)).map((f) => `${path}: ${f}`))
    const wide = await own.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    if (wide > 0) found.push(`${path}: ${wide} pixels wider than the window`)
  }
  await own.close()
  expect(found).toEqual([])
  expect(own.wrong).toEqual([])
})
