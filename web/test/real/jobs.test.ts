// Jobs: begun on the page, watched, paused, resumed, cancelled, and their results as one archive.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { strFromU8, unzipSync } from 'fflate'
import { expect, test } from 'vitest'
import { go } from '../support/browser'
import { examples } from '../support/network'
import { endless } from '../support/programs'
import { real } from '../support/real'

const here = real()
const wordcount = join(examples, 'wordcount.wasm')
const shards = () => here.page.getByRole('table', { name: 'Shards' }).locator('[data-row]')

test('a program and files are dropped, each file is a shard, and the results come as one archive', async () => {
  const { page } = here
  await go(page, 'jobs', 'Jobs')
  await page.getByRole('link', { name: 'New job' }).click()
  await page.getByRole('heading', { name: 'New job' }).waitFor()
  await page.getByRole('button', { name: 'Start' }).click()
  await page.getByText('Choose a WebAssembly file').waitFor()
  await page.getByText('Choose the files').waitFor()
  await page.locator('#job-module').setInputFiles(wordcount)
  // One of them is too large to go with others.
  const words = ['onion', 'shallot', 'papyrus']
  const files = Array.from({ length: 12 }, (_, i) => ({
    name: `chapter-${i}.md`,
    mimeType: 'text/plain',
    buffer: Buffer.from(i === 11 ? 'leek '.repeat(100_000) : `${words[i % 3]} `.repeat(i + 1)),
  }))
  await page.locator('#job-inputs').setInputFiles(files.slice(0, 1))
  await page.locator('#job-inputs').setInputFiles(files.slice(1))
  await page.getByLabel('Arguments').fill('-top 1')
  await page.getByLabel('Name', { exact: true }).fill('count the words')
  // What was chosen is there after a look at another screen.
  await go(page, 'jobs', 'Jobs')
  await go(page, 'jobs/new', 'New job')
  await page.getByText('12 files').waitFor()
  await page.getByRole('button', { name: 'Start' }).click()
  await page.getByRole('heading', { name: 'count the words' }).waitFor()
  await page.getByText('12 of 12 ended').waitFor({ timeout: 120_000 })
  await expect.poll(() => here.state().innerText()).toBe('completed')
  await expect.poll(() => shards().count()).toBe(12)
  await page.getByRole('img', { name: /^Shards: 12 completed/ }).waitFor()

  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Results' }).click()])
  const archive = unzipSync(new Uint8Array(readFileSync(await download.path())))
  const outputs = Object.keys(archive).filter((p) => p.endsWith('/stdout'))
  expect(outputs).toHaveLength(12)
  const said = (name: string) => strFromU8(archive[`shards/${name}/stdout`] ?? new Uint8Array())
  expect(said('chapter-2.md')).toContain('3  papyrus')
  expect(said('chapter-11.md')).toContain('100000  leek')
  const manifest = JSON.parse(strFromU8(archive['manifest.json'] ?? new Uint8Array())) as { shards: unknown[] }
  expect(manifest.shards).toHaveLength(12)
})

test('one that runs is paused, resumed and cancelled', async () => {
  const { page } = here
  await go(page, `jobs/${await here.job('<b>endless</b>', { module: endless, shards: 3 })}`, '<b>endless</b>')
  await expect.poll(() => page.getByText(/[1-3] running/).count(), { timeout: 60_000 }).toBeGreaterThan(0)
  await page.getByRole('button', { name: 'Pause' }).click()
  await expect.poll(() => here.state().innerText(), { timeout: 60_000 }).toBe('paused')
  await page.getByRole('button', { name: 'Resume' }).click()
  await expect.poll(() => here.state().innerText(), { timeout: 60_000 }).toBe('running')
  await page.getByRole('button', { name: 'Cancel' }).click()
  await page.getByRole('button', { name: 'Let it run' }).click()
  expect(await here.state().innerText()).toBe('running')
  await page.getByRole('button', { name: 'Cancel' }).click()
  await page.getByRole('button', { name: 'Cancel the job' }).click()
  await expect.poll(() => here.state().innerText(), { timeout: 60_000 }).toBe('cancelled')
  await page.getByText('3 of 3 ended').waitFor()
})

test('one whose program fails says which shards and why', async () => {
  const { page } = here
  await go(page, 'jobs/new', 'New job')
  await page.locator('#job-module').setInputFiles({ name: 'endless.wasm', mimeType: 'application/wasm', buffer: endless })
  await page.locator('#job-inputs').setInputFiles([{ name: 'one', mimeType: 'text/plain', buffer: Buffer.from('1') }])
  await page.getByLabel('Time', { exact: true }).fill('1s')
  await page.getByRole('button', { name: 'Start' }).click()
  await page.getByRole('cell', { name: 'TIME_LIMIT', exact: true }).waitFor({ timeout: 120_000 })
  await expect.poll(() => here.state().innerText(), { timeout: 120_000 }).toBe('failed')
})
