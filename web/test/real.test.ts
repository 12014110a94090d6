// The dashboard in a real browser before real nodes.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { axe, code, go, launch, signedIn, tab, type Tab } from './support/browser'
import { examples, lone, network, run, type Network } from './support/network'
import { endless, png } from './support/programs'

let net: Network
let browser: Browser
let t: Tab
let page: Page
const folder = mkdtempSync(join(tmpdir(), 'web-'))

beforeAll(async () => {
  ;[net, browser] = await Promise.all([network(2), launch()])
  writeFileSync(join(folder, 'endless.wasm'), endless)
})
afterAll(async () => {
  await browser?.close()
  await net?.close()
  rmSync(folder, { recursive: true, force: true })
})
beforeEach(async () => {
  t = await signedIn(browser, net.consumer)
  page = t.page
})
afterEach(async () => {
  await t.close()
  expect(t.wrong).toEqual([])
})

const rest = async <T>(path: string, init: RequestInit = {}): Promise<T> => {
  const r = await fetch(net.consumer.url + path, { ...init, headers: { authorization: `Bearer ${net.consumer.token}`, ...init.headers } })
  if (!r.ok) throw new Error(`${path}: ${r.status} ${await r.text()}`)
  return (await r.json()) as T
}
const submit = (spec: unknown) => rest<{ id: string }>('/v1/tasks', { method: 'POST', body: JSON.stringify({ spec }) })
const upload = (bytes: Buffer) => rest<{ upload_id: string }>('/v1/uploads', { method: 'POST', body: new Uint8Array(bytes) })
const state = () => page.locator('.head .state')

async function chooseProgram(path: string, time = '') {
  await go(page, 'tasks/new', 'New task')
  await page.getByRole('radio', { name: 'wasm' }).check()
  await page.locator('#module').setInputFiles(path)
  await page.getByLabel('Time').fill(time)
}

describe('signing in', () => {
  test('the code is gone from the address, is good once, and the session lasts over a reload', async () => {
    const fresh = await tab(browser)
    const c = await code(net.consumer)
    await fresh.page.goto(`${net.consumer.url}/#code=${c}`)
    await fresh.page.getByRole('heading', { name: 'Overview' }).waitFor()
    expect(fresh.page.url()).not.toContain(c)
    await fresh.page.reload()
    await fresh.page.getByRole('heading', { name: 'Overview' }).waitFor()
    // The browser's history has the code: the session that it began goes on.
    await fresh.page.goto(`${net.consumer.url}/?again#code=${c}`)
    await fresh.page.getByRole('heading', { name: 'Overview' }).waitFor()
    const other = await tab(browser)
    await other.page.goto(`${net.consumer.url}/#code=${c}`)
    await other.page.getByRole('alert').waitFor()
    await other.page.getByText('shallot dashboard', { exact: true }).waitFor()
    expect([...fresh.wrong, ...other.wrong]).toEqual([])
    await fresh.close()
    await other.close()
  })

  test('a token signs in, a wrong one does not, and signing out ends it', async () => {
    const fresh = await tab(browser)
    const p = fresh.page
    await p.goto(net.consumer.url)
    await p.getByLabel("Or sign in with the node's token").fill('wrong')
    await p.getByRole('button', { name: 'Sign in' }).click()
    await p.getByRole('alert').waitFor()
    await p.getByLabel("Or sign in with the node's token").fill(net.consumer.token)
    await p.getByRole('button', { name: 'Sign in' }).click()
    await p.getByRole('heading', { name: 'Overview' }).waitFor()
    await p.getByRole('button', { name: 'Sign out' }).click()
    await p.getByText('shallot dashboard', { exact: true }).waitFor()
    await p.reload()
    await p.getByText('shallot dashboard', { exact: true }).waitFor()
    expect(fresh.wrong).toEqual([])
    await fresh.close()
  })
})

test('the overview says what this node is and how its processes are', async () => {
  await page.getByRole('cell', { name: 'broker' }).waitFor()
  for (const p of ['task', 'node']) await page.getByRole('cell', { name: p, exact: true }).waitFor()
  await expect.poll(() => page.locator('.figures').innerText()).toMatch(/Providers\s+2/)
  await page.getByText('nothing for others: it is a consumer').waitFor()
})

test('a sum is submitted, shown and run again', async () => {
  await page.getByRole('cell', { name: 'broker' }).waitFor()
  await page.keyboard.press('n')
  await page.getByRole('heading', { name: 'New task' }).waitFor()
  await page.getByRole('button', { name: 'Submit' }).click()
  await page.getByText('Give numbers, such as 0.1 0.2.').waitFor()
  await page.getByLabel('Numbers').fill('0.1 0.2')
  await page.getByLabel('Labels').fill('who=web')
  await page.getByRole('button', { name: 'Submit' }).click()
  await page.getByText('completed').first().waitFor()
  await expect.poll(() => page.locator('pre[aria-label="standard output"]').innerText()).toBe('0.3\n')
  await page.getByText('who=web').waitFor()
  await page.getByText('Attempt 1').first().waitFor()
  await page.getByRole('button', { name: 'Run again' }).click()
  await page.getByRole('heading', { name: 'New task' }).waitFor()
  expect(await page.getByLabel('Numbers').inputValue()).toBe('0.1 0.2')
  expect(await page.getByLabel('Labels').inputValue()).toBe('who=web')
})

test('a program runs with arguments, standard input and files, and its result is downloaded', async () => {
  await chooseProgram(join(examples, 'wordcount.wasm'), '60s')
  await page.getByLabel('Arguments').fill('-top 1')
  await page.getByLabel('Standard input', { exact: true }).fill('shallot shallot onion')
  await page.getByRole('button', { name: 'Submit' }).click()
  const out = page.locator('pre[aria-label="standard output"]')
  await expect.poll(() => out.innerText(), { timeout: 120_000 }).toContain('2  shallot')
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'Download' }).first().click()])
  expect(readFileSync(await download.path(), 'utf8')).toBe(await out.innerText())
  await page.getByRole('button', { name: 'bytes' }).click()
  await page.getByText('00000000').waitFor()

  // The same program again, with a file, which it reads in the place of standard input.
  await page.getByRole('button', { name: 'Run again' }).click()
  await page.getByText('wordcount.wasm').waitFor()
  expect(await page.getByLabel('Arguments').inputValue()).toBe('-top 1')
  await page.locator('#inputs').setInputFiles([{ name: 'x.txt', mimeType: 'text/plain', buffer: Buffer.from('papyrus') }])
  await page.getByRole('button', { name: 'Submit' }).click()
  await expect.poll(() => out.innerText(), { timeout: 120_000 }).toContain('1  papyrus')
})

test('a file that is dropped is the program; what is none is refused at once', async () => {
  await go(page, 'tasks/new', 'New task')
  await page.getByRole('radio', { name: 'wasm' }).check()
  const drop = async (name: string, bytes: Buffer) => {
    const data = await page.evaluateHandle(
      ([n, b]) => {
        const d = new DataTransfer()
        d.items.add(new File([new Uint8Array(b)], n))
        return d
      },
      [name, [...bytes]] as const,
    )
    await page.getByRole('group', { name: 'the program' }).dispatchEvent('drop', { dataTransfer: data })
  }
  await drop('notes.txt', Buffer.from('hello'))
  await page.getByText('notes.txt is not WebAssembly').waitFor()
  await drop('endless.wasm', endless)
  await page.getByText('endless.wasm').waitFor()
  // Nothing that was chosen is lost by looking at another screen.
  await go(page, 'tasks', 'Tasks')
  await go(page, 'tasks/new', 'New task')
  await page.getByText('endless.wasm').waitFor()
})

test('a running task is cancelled, after one question', async () => {
  await chooseProgram(join(folder, 'endless.wasm'), '10m')
  await page.getByRole('button', { name: 'Submit' }).click()
  await expect.poll(() => state().innerText(), { timeout: 60_000 }).toBe('running')
  await page.getByRole('button', { name: 'Cancel' }).click()
  await page.getByRole('button', { name: 'Let it run' }).click()
  expect(await state().innerText()).toBe('running')
  await page.getByRole('button', { name: 'Cancel' }).click()
  await page.getByRole('button', { name: 'Cancel the task' }).click()
  await expect.poll(() => state().innerText(), { timeout: 60_000 }).toBe('cancelled')
})

test('tasks are filtered, and change by themselves', async () => {
  await submit({ type: 'sum', sum: { addends: ['1'] }, labels: { lot: 'filter-me' } })
  await go(page, 'tasks', 'Tasks')
  const rows = page.getByRole('table', { name: 'Tasks' }).locator('[data-row]')
  await expect.poll(() => rows.count()).toBeGreaterThan(0)
  await page.getByLabel('Text').fill('filter-me')
  await expect.poll(() => rows.count()).toBe(1)
  await submit({ type: 'sum', sum: { addends: ['2'] }, labels: { lot: 'filter-me' } })
  await expect.poll(() => rows.count(), { timeout: 30_000 }).toBe(2)
  await page.getByLabel('State').selectOption('failed')
  await page.getByText('No task fits').waitFor()
  await page.getByRole('button', { name: 'Show all tasks' }).click()
  await expect.poll(() => rows.count()).toBeGreaterThan(1)
  await page.reload()
  await page.getByRole('heading', { name: 'Tasks' }).waitFor()
})

test('a provider that dies while its task is watched: the task goes on elsewhere', async () => {
  const { addresses } = await rest<{ addresses: string[] }>('/v1/node')
  const victim = await lone(addresses[0] ?? '')
  try {
    await expect
      .poll(async () => (await rest<{ peers: { peer_id: string }[] }>('/v1/peers')).peers.map((p) => p.peer_id), { timeout: 60_000 })
      .toContain(victim.peer)
    const { upload_id } = await upload(endless)
    const spec = { type: 'wasm', wasm: { module: { upload_id } }, limits: { time: '600s' }, placement: { redirect: false } }
    // Which provider is drawn is chance: those that went elsewhere are ended, until one went to the victim.
    let id = ''
    for (let n = 0; id === '' && n < 60; n++) {
      const task = await submit(spec)
      let at = ''
      await expect
        .poll(async () => {
          const t = await rest<{ provider: string; state: string }>(`/v1/tasks/${task.id}`)
          at = t.provider
          return t.state
        })
        .toBe('RUNNING')
      if (at === victim.peer) id = task.id
      else await rest(`/v1/tasks/${task.id}:cancel`, { method: 'POST', body: '{}' })
    }
    expect(id).not.toBe('')
    await go(page, `tasks/${id}`, `Task ${id.slice(0, 8)}`)
    await expect.poll(() => state().innerText(), { timeout: 60_000 }).toBe('running')
    await victim.kill()
    await page.getByRole('heading', { name: 'Attempt 2', exact: true }).waitFor({ timeout: 120_000 })
    await page.getByText('lease lost').first().waitFor()
    await expect.poll(() => state().innerText(), { timeout: 60_000 }).toBe('running')
    await rest(`/v1/tasks/${id}:cancel`, { method: 'POST', body: '{}' })
    await expect.poll(() => state().innerText(), { timeout: 60_000 }).toBe('cancelled')
  } finally {
    await victim.close()
  }
}, 300_000)

test('what strangers wrote is text, wherever it is shown', async () => {
  const evil = `<img src=x onerror="alert(1)"><script>alert(2)</script><svg onload=alert(3)>"'&lt;`
  const { upload_id } = await upload(readFileSync(join(examples, 'wordcount.wasm')))
  const { id } = await submit({
    type: 'wasm',
    wasm: { module: { upload_id }, stdin: { inline: Buffer.from(evil.replaceAll(' ', '/')).toString('base64') }, args: ['-top', '9'] },
    labels: { [evil.slice(0, 60)]: evil },
  })
  await go(page, `tasks/${id}`, /Task/)
  await page.getByText('<script>alert(2)</script>').first().waitFor()
  await page.locator('pre[aria-label="standard output"]').waitFor()
  await page.evaluate((h) => (location.hash = h), `#/tasks/${encodeURIComponent('<img src=x onerror=alert(1)>')}`)
  await page.getByText('There is no such task here').or(page.getByText('Could not load the task')).waitFor()
  await go(page, `tasks?text=${encodeURIComponent(evil)}`, 'Tasks')
  await page.locator('[data-row]').first().waitFor()
  expect(await page.locator('img, main script, main svg[onload]').count()).toBe(0)
})

test('a picture is shown as one, and an SVG as text', async () => {
  // What a program wrote: the same bytes come back when they are its standard input and it counts no words of them, so the test answers for the node.
  const { id } = await submit({ type: 'sum', sum: { addends: ['7'] } })
  let body: Buffer = png
  await page.route('**/result?body=stdout', (r) => r.fulfill({ body, contentType: 'application/octet-stream' }))
  await go(page, `tasks/${id}`, /Task/)
  const img = page.locator('main img')
  await expect.poll(() => img.evaluate((i: HTMLImageElement) => i.naturalWidth)).toBe(1)
  expect(await img.getAttribute('src')).toMatch(/^blob:/)
  body = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><text>x</text></svg>')
  await page.reload()
  await page.locator('pre[aria-label="standard output"]').getByText('<svg xmlns').waitFor()
  expect(await page.locator('main img').count()).toBe(0)
})

describe('jobs', () => {
  test('one that is done shows its shards', async () => {
    for (let i = 0; i < 12; i++) writeFileSync(join(folder, `${i}.md`), `shallot ${i}`)
    await net.run('map', 'wasm', join(examples, 'wordcount.wasm'), '--inputs', join(folder, '*.md'), '--output', join(folder, 'out'))
    await go(page, 'jobs', 'Jobs')
    await page
      .getByRole('link', { name: /wordcount/ })
      .first()
      .click()
    await page.getByText('12 of 12 ended').waitFor()
    await expect.poll(() => page.getByRole('table', { name: 'Shards' }).locator('[data-row]').count()).toBe(12)
    await page.getByRole('img', { name: /^Shards: 12 completed/ }).waitFor()
  })

  test('one that runs is paused, resumed and cancelled', async () => {
    const { upload_id } = await upload(endless)
    const job = await rest<{ job: { id: string } }>('/v1/jobs', {
      method: 'POST',
      body: JSON.stringify({
        request_id: 'web',
        spec: { task: { type: 'wasm', wasm: { module: { upload_id } }, limits: { time: '600s' } }, total: 3, name: '<b>endless</b>' },
      }),
    })
    const shards = [0, 1, 2].map((index) => ({ index, name: `s${index}`, content: { inline: '' } }))
    await rest(`/v1/jobs/${job.job.id}/shards`, { method: 'POST', body: JSON.stringify({ shards }) })
    await go(page, `jobs/${job.job.id}`, '<b>endless</b>')
    await page.getByText('running').first().waitFor()
    await page.getByRole('button', { name: 'Pause' }).click()
    await expect.poll(() => state().innerText(), { timeout: 60_000 }).toBe('paused')
    await page.getByRole('button', { name: 'Resume' }).click()
    await expect.poll(() => state().innerText(), { timeout: 60_000 }).toBe('running')
    await page.getByRole('button', { name: 'Cancel' }).click()
    await page.getByRole('button', { name: 'Cancel the job' }).click()
    await expect.poll(() => state().innerText(), { timeout: 60_000 }).toBe('cancelled')
  })
})

test('the network shows its peers, and each of them', async () => {
  await go(page, 'network', 'Network')
  const rows = page.getByRole('table', { name: 'Peers' }).locator('[data-row]')
  await expect.poll(() => rows.count()).toBeGreaterThanOrEqual(2)
  await page.locator('svg .dot').first().hover()
  await page.locator('svg .tip').waitFor()
  await rows.first().getByRole('link').click()
  await page.getByRole('cell', { name: 'wasm', exact: true }).waitFor()
  await page.getByRole('meter', { name: 'Memory' }).waitFor()
})

test('content is put, looked up, downloaded, verified, let go and collected', async () => {
  await go(page, 'content', 'Content')
  await page
    .locator('#put-files')
    .setInputFiles([{ name: '"><script>alert(1)</script>.txt', mimeType: 'text/plain', buffer: Buffer.from('kept words') }])
  const cid = await page
    .locator('section', { has: page.getByRole('heading', { name: 'Put files' }) })
    .locator('.mono')
    .innerText()
  expect(cid).toMatch(/^bafk/)
  await page.getByRole('textbox', { name: 'CID' }).fill(cid)
  await page.getByRole('button', { name: 'Look it up' }).click()
  await page.getByText('all of it is on this node').waitFor()
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: 'Download', exact: true }).first().click(),
  ])
  expect(readFileSync(await download.path(), 'utf8')).toBe('kept words')
  await page.getByRole('button', { name: 'Verify everything' }).click()
  await page.getByText('all are good').waitFor()
  await page
    .getByRole('button', { name: /^Unpin/ })
    .first()
    .click()
  await page.getByRole('button', { name: 'Unpin it' }).click()
  await page.getByText('Nothing is kept').waitFor()
  await page.getByRole('button', { name: 'Remove what nobody keeps' }).click()
  await page.getByRole('button', { name: 'Remove it' }).click()
  await page.getByText(/^Removed/).waitFor()
})

test('what the node offers beside tasks: history, findings, settings, invites, tokens, certificates', async () => {
  const offered = async (path: string) =>
    (await fetch(net.consumer.url + path, { headers: { authorization: `Bearer ${net.consumer.token}` } })).status !== 404
  await go(page, 'overview', 'Overview')
  if (await offered('/v1/node/history?span=900s')) {
    await page.getByRole('img', { name: /^Queue: waiting \d/ }).waitFor({ timeout: 60_000 })
    await page.getByRole('img', { name: /^Disk: used [\d.]+ [KMG]?i?B/ }).waitFor()
  } else await page.getByText('This node does not offer its history').waitFor()
  if (!(await offered('/v1/node:diagnose'))) await page.getByText('This node does not offer its findings').waitFor()
  else await page.getByRole('region', { name: 'Findings' }).locator('p').first().waitFor()

  await go(page, 'settings', 'Settings')
  if (await offered('/v1/settings')) {
    await page.getByRole('searchbox', { name: 'Find settings' }).fill('http')
    await page.getByRole('cell', { name: 'http', exact: true }).waitFor()
  } else await page.getByText('This node does not offer its settings').waitFor()
  if (await offered('/v1/tokens')) {
    await page.getByLabel('Name of a new token').fill('from-the-page')
    await page.getByRole('button', { name: 'Add' }).click()
    const token = await page.getByRole('status').locator('code').innerText()
    const asked = () => fetch(`${net.consumer.url}/v1/node`, { headers: { authorization: `Bearer ${token}` } }).then((r) => r.status)
    expect(await asked()).toBe(200)
    await page.getByRole('button', { name: 'Revoke from-the-page' }).click()
    await page.getByRole('button', { name: 'Revoke it' }).click()
    await expect.poll(asked, { timeout: 30_000 }).toBe(401)
  }
  await expect.poll(() => page.getByRole('region', { name: 'Client certificates' }).locator('[aria-busy=true]').count()).toBe(0)
  // What comes of it is the network's to say: this one, of shallot dev, is not closed.
  await page.getByRole('button', { name: 'Make an invite' }).click()
  await page
    .getByText('No invite was made')
    .or(page.getByText('does not make invites here'))
    .or(page.getByRole('textbox', { name: 'The invite' }))
    .waitFor()
})

test('why a task went where it went', async () => {
  const { id } = await submit({ type: 'sum', sum: { addends: ['3'] } })
  await go(page, `tasks/${id}`, /Task/)
  const why = page.getByRole('region', { name: 'Placement' })
  await why.getByText('chosen').or(why.getByText('This node does not offer')).first().waitFor()
})

test('while the node is away a banner says so, and nothing that was typed is lost', async () => {
  await go(page, 'tasks/new', 'New task')
  await page.getByRole('radio', { name: 'sum' }).check()
  await page.getByLabel('Numbers').fill('4 5')
  await page.context().setOffline(true)
  await page.getByText(/^The node is away/).waitFor()
  await page.getByRole('button', { name: 'Submit' }).click()
  await page.getByText('Not submitted').waitFor()
  expect(await page.getByLabel('Numbers').inputValue()).toBe('4 5')
  await page.context().setOffline(false)
  await expect.poll(() => page.getByText(/^The node is away/).count(), { timeout: 60_000 }).toBe(0)
  await page.getByRole('button', { name: 'Try again' }).click()
  await expect.poll(() => page.locator('pre[aria-label="standard output"]').innerText(), { timeout: 60_000 }).toBe('9\n')
})

test('everything is reached by keyboard, and nothing holds it', async () => {
  for (const n of ['1', '2']) await submit({ type: 'sum', sum: { addends: [n] } })
  await page.keyboard.press('?')
  await page.getByRole('dialog').waitFor()
  await page.keyboard.press('Escape')
  await expect.poll(() => page.getByRole('dialog').count()).toBe(0)
  await page.keyboard.press('g')
  await page.keyboard.press('t')
  await page.getByRole('heading', { name: 'Tasks' }).waitFor()
  await page.locator('[data-row]').nth(1).waitFor()
  await page.keyboard.press('/')
  expect(await page.evaluate(() => document.activeElement?.getAttribute('aria-label'))).toBe('Text')
  await page.keyboard.press('Escape')
  await page.locator('[data-row] a').first().focus()
  await page.keyboard.press('ArrowDown')
  await expect.poll(() => page.evaluate(() => document.activeElement?.closest('[data-row]')?.getAttribute('data-row'))).toBe('1')
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: /^Task / }).waitFor()
  for (const [path, heading] of [
    ['overview', 'Overview'],
    ['tasks', 'Tasks'],
    ['tasks/new', 'New task'],
    ['network', 'Network'],
    ['content', 'Content'],
    ['settings', 'Settings'],
  ] as const) {
    await go(page, path, heading)
    await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur())
    const seen: string[] = []
    for (let i = 0; i < 90; i++) {
      await page.keyboard.press('Tab')
      const at = await page.evaluate(() => {
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
  const { tasks } = await rest<{ tasks: { id: string }[] }>('/v1/tasks?page_size=1')
  const { jobs } = await rest<{ jobs: { id: string }[] }>('/v1/jobs?page_size=1')
  const { peers } = await rest<{ peers: { peer_id: string }[] }>('/v1/peers')
  const own = await signedIn(browser, net.consumer, { colorScheme, viewport: { width, height: 800 } })
  const found: string[] = []
  for (const [path, heading] of [
    ['overview', 'Overview'],
    ['tasks', 'Tasks'],
    ['tasks/new', 'New task'],
    [`tasks/${tasks[0]?.id}`, /Task/],
    ['jobs', 'Jobs'],
    [`jobs/${jobs[0]?.id}`, /./],
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

test('a provider has its own dashboard', async () => {
  const own = await signedIn(browser, net.provider)
  await own.page.getByRole('meter', { name: 'Slots' }).waitFor()
  await go(own.page, 'tasks', 'Tasks')
  await own.page.locator('[data-row]').first().waitFor()
  await go(own.page, 'jobs', 'Jobs')
  await own.page.getByText('Jobs belong to consumers').waitFor()
  expect(await axe(own.page)).toEqual([])
  expect(own.wrong).toEqual([])
  await own.close()
})

test('shallot dashboard prints an address that opens it', async () => {
  const out = await run('--home', net.consumer.home, 'dashboard', '--no-open').catch((e: unknown) =>
    String(e).includes('unknown command') ? '' : Promise.reject(e as Error),
  )
  if (out === '') return // of a build without the command
  const url = /http:\/\/\S+#code=\S+/.exec(out)?.[0] ?? ''
  const fresh = await tab(browser)
  await fresh.page.goto(url)
  await fresh.page.getByRole('heading', { name: 'Overview' }).waitFor()
  await fresh.close()
})
