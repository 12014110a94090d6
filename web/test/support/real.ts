// What every file of tests before real nodes begins with: the network that all of them share, a browser, and a page that is signed in.
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Locator, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, inject } from 'vitest'
import { go, launch, signedIn, type Tab } from './browser'
import { reach, type Network, type Node } from './network'

export interface Real {
  readonly net: Network
  readonly browser: Browser
  readonly page: Page
  /** A folder for the file's own. */
  readonly folder: string
  /** Asks the consumer, or another node. */
  rest<T>(path: string, init?: RequestInit, node?: Node): Promise<T>
  submit(spec: unknown): Promise<{ id: string }>
  upload(bytes: Buffer): Promise<{ upload_id: string }>
  /** Makes a job of a program and says its id. */
  job(name: string, of: { module: Buffer; shards: number }): Promise<string>
  /** The state at a screen's head. */
  state(): Locator
  chooseProgram(file: Parameters<Locator['setInputFiles']>[0], time?: string): Promise<void>
}

/** Registers what is done before and after each test of the file. */
export function real(): Real {
  const net = reach(inject('nodes'))
  let browser: Browser
  let t: Tab
  const folder = mkdtempSync(join(tmpdir(), 'web-'))

  beforeAll(async () => {
    browser = await launch()
  })
  afterAll(async () => {
    await browser?.close()
    rmSync(folder, { recursive: true, force: true })
  })
  beforeEach(async () => {
    t = await signedIn(browser, net.consumer)
  })
  afterEach(async () => {
    await t.close()
    expect(t.wrong).toEqual([])
  })

  const rest = async <T>(path: string, init: RequestInit = {}, node = net.consumer): Promise<T> => {
    const r = await fetch(node.url + path, { ...init, headers: { authorization: `Bearer ${node.token}`, ...init.headers } })
    if (!r.ok) throw new Error(`${path}: ${r.status} ${await r.text()}`)
    return (await r.json()) as T
  }
  const upload = (bytes: Buffer) => rest<{ upload_id: string }>('/v1/uploads', { method: 'POST', body: new Uint8Array(bytes) })
  return {
    net,
    folder,
    get browser() {
      return browser
    },
    get page() {
      return t.page
    },
    rest,
    submit: (spec) => rest('/v1/tasks', { method: 'POST', body: JSON.stringify({ spec }) }),
    upload,
    job: async (name, { module, shards }) => {
      const { upload_id } = await upload(module)
      const spec = { task: { type: 'wasm', wasm: { module: { upload_id } }, limits: { time: '600s' } }, total: shards, name }
      const { job } = await rest<{ job: { id: string } }>('/v1/jobs', {
        method: 'POST',
        body: JSON.stringify({ request_id: randomUUID(), spec }),
      })
      const list = Array.from({ length: shards }, (_, index) => ({ index, name: `s${index}`, content: { inline: '' } }))
      await rest(`/v1/jobs/${job.id}/shards`, { method: 'POST', body: JSON.stringify({ shards: list }) })
      return job.id
    },
    state: () => t.page.locator('.head .state'),
    chooseProgram: async (file, time = '') => {
      await go(t.page, 'tasks/new', 'New task')
      await t.page.getByRole('radio', { name: 'wasm' }).check()
      await t.page.locator('#module').setInputFiles(file)
      await t.page.getByLabel('Time').fill(time)
    },
  }
}
