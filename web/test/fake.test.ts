// The dashboard before a REST server of the test, with more than a node on this machine could have: 10,000 tasks, 1,000 peers, a job of 20,000 shards.
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { axe, go, launch, tab } from './support/browser'
import { fake, hostile } from './support/fake'
import { serve, type Site } from './support/site'

let browser: Browser
let site: Site

beforeAll(async () => {
  ;[browser, site] = await Promise.all([launch(), serve(fake({ tasks: 10_000, peers: 1000, shards: 20_000, anonymous: false }))])
})
afterAll(async () => {
  await browser?.close()
  await site?.close()
})

test('10,000 tasks: few rows are made, all are reached, changes are shown, and how long it took', async () => {
  const t = await tab(browser)
  await t.page.addInitScript(() => {
    const w = window as unknown as { longTasks: number[] }
    w.longTasks = []
    new PerformanceObserver((l) => w.longTasks.push(...l.getEntries().map((e) => e.duration))).observe({ type: 'longtask', buffered: true })
  })
  await t.page.goto(`${site.url}/#/tasks`)
  await t.page.locator('[data-row]').first().waitFor()
  const shown = await t.page.evaluate(() => performance.now())
  const table = t.page.getByRole('table', { name: 'Tasks' })
  const body = table.locator('.body')
  await expect
    .poll(
      async () => {
        await body.evaluate((b) => (b.scrollTop = b.scrollHeight))
        return Number(await table.getAttribute('aria-rowcount'))
      },
      { timeout: 120_000 },
    )
    .toBe(10_001)
  await body.evaluate((b) => (b.scrollTop = b.scrollHeight))
  await table.locator('[data-row="9999"]').waitFor()
  expect(await table.locator('[data-row]').count()).toBeLessThan(80)
  await table.locator('a').last().focus()
  await t.page.keyboard.press('Home')
  await expect.poll(() => t.page.evaluate(() => document.activeElement?.closest('[data-row]')?.getAttribute('data-row'))).toBe('0')
  await t.page.getByText('live').waitFor()
  // The stream of the fake changes one task again and again.
  await table.getByText('running').first().waitFor()
  const long = await t.page.evaluate(() => (window as unknown as { longTasks: number[] }).longTasks)
  console.log(
    `10,000 tasks: first rows after ${Math.round(shown)} ms; ${long.length} long tasks, the longest ${Math.round(Math.max(0, ...long))} ms`,
  )
  expect(t.wrong).toEqual([])
  await t.close()
})

test('1,000 peers: a picture and a table, and how long it took', async () => {
  const t = await tab(browser)
  await t.page.goto(`${site.url}/#/network`)
  await expect.poll(() => t.page.locator('svg .dot').count(), { timeout: 60_000 }).toBe(1000)
  console.log(`1,000 peers: all dots after ${Math.round(await t.page.evaluate(() => performance.now()))} ms`)
  expect(await t.page.getByRole('table', { name: 'Peers' }).getAttribute('aria-rowcount')).toBe('1001')
  expect(await t.page.getByRole('table', { name: 'Peers' }).locator('[data-row]').count()).toBeLessThan(60)
  expect(await axe(t.page)).toEqual([])
  expect(t.wrong).toEqual([])
  await t.close()
})

test('a job of 20,000 shards: all squares, its failures by reason', async () => {
  const t = await tab(browser)
  await t.page.goto(`${site.url}/#/jobs/job`)
  await expect
    .poll(() => t.page.getByRole('table', { name: 'Shards' }).getAttribute('aria-rowcount'), { timeout: 60_000 })
    .toMatch(/^[12]\d{4}$/)
  await t.page.getByRole('cell', { name: 'TIME_LIMIT', exact: true }).waitFor()
  expect(t.wrong).toEqual([])
  await t.close()
})

test('all that a node offers is shown, hostile strings as text, on every screen', async () => {
  const t = await tab(browser)
  const { page } = t
  for (const [path, heading, text] of [
    ['overview', 'Overview', hostile('detail')],
    ['tasks', 'Tasks', hostile('label')],
    ['tasks/0000000000000000000000000000000', /Task/, hostile('why')],
    ['jobs', 'Jobs', hostile('job')],
    ['network/peer-1', /Peer/, hostile('attribute')],
    ['content', 'Content', hostile('owner')],
    ['settings', 'Settings', hostile('value')],
  ] as const) {
    await page.goto(`${site.url}/#/${path}`)
    await page.getByRole('heading', { level: 1, name: heading }).waitFor()
    await page.getByText(text).first().waitFor()
    expect(await page.locator('main img, main script, main iframe, main [onload]').count(), path).toBe(0)
    expect(await axe(page), path).toEqual([])
  }
  expect(t.wrong).toEqual([])
  await t.close()
})

test('findings, history, invites, tokens and certificates', async () => {
  const t = await tab(browser)
  const { page } = t
  await page.goto(`${site.url}/#/overview`)
  await page.getByText('clocks differ').waitFor()
  await page.getByText('set the clock').waitFor()
  for (const chart of ['Queue', 'Tasks', 'Time of a task', 'Processors of this node', 'Memory of this node', 'Disk'])
    await page.getByRole('img', { name: new RegExp(`^${chart}: `) }).waitFor()
  await page.getByRole('button', { name: '24 h' }).click()
  await page.goto(`${site.url}/#/settings`)
  await page.getByRole('button', { name: 'Make an invite' }).click()
  await page.getByRole('img', { name: 'The invite as a QR code' }).waitFor()
  expect(await page.getByRole('textbox', { name: 'The invite' }).inputValue()).toBe('shallot-invite:abc')
  await page.getByLabel('Name of a new token').fill('backup')
  await page.getByRole('button', { name: 'Add' }).click()
  await page.getByText('secret-of-backup').waitFor()
  await page.getByRole('button', { name: 'Revoke backup' }).click()
  await page.getByRole('button', { name: 'Revoke it' }).click()
  await expect.poll(() => page.getByText('secret-of-backup').count()).toBe(0)
  await page.getByText('laptop').waitFor()
  await page.getByText('secret: not shown').waitFor()
  await page.getByText('only what was set').click()
  await expect.poll(() => page.getByRole('cell', { name: 'log.level' }).count()).toBe(0)
  expect(t.wrong).toEqual([])
  await t.close()
})

test('an anonymous node: aliases and classes, and no peer id anywhere', async () => {
  const hidden = await serve(fake({ tasks: 50, peers: 130, shards: 10, anonymous: true }))
  const t = await tab(browser)
  for (const [path, heading] of [
    ['overview', 'Overview'],
    ['network', 'Network'],
    ['network/p-00000001', /p-00000001/],
    ['tasks', 'Tasks'],
    ['tasks/0000000000000000000000000000000', /Task/],
  ] as const) {
    await t.page.goto(`${hidden.url}/#/${path}`)
    await t.page.getByRole('heading', { level: 1, name: heading }).waitFor()
    await expect.poll(() => t.page.locator('[aria-busy=true]').count()).toBe(0)
    expect(await t.page.content(), path).not.toMatch(/peer-\d|EPYC/)
  }
  await go(t.page, 'overview', 'Overview')
  await t.page.getByText('enclosed: its processes have no network but tor').waitFor()
  expect(t.wrong).toEqual([])
  await t.close()
  await hidden.close()
})

test('a node that offers none of the new calls says so, and works', async () => {
  const old = await serve(fake({ tasks: 5, peers: 2, shards: 1, anonymous: false, old: true }))
  const t = await tab(browser)
  await t.page.goto(`${old.url}/#/overview`)
  await t.page.getByText('This node does not offer its findings').waitFor()
  await go(t.page, 'tasks', 'Tasks')
  await expect.poll(() => t.page.locator('[data-row]').count()).toBe(5)
  await t.page.getByText('every 2 s').waitFor()
  await go(t.page, 'settings', 'Settings')
  await t.page.getByText('This node does not offer its settings').waitFor()
  expect(t.wrong).toEqual([])
  await t.close()
  await old.close()
})
