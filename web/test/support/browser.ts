import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import { expect } from 'vitest'
import type { Node } from './network'

export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}

export interface Tab {
  page: Page
  /** What the page must never do: break its policy, throw, or run what a stranger wrote. */
  wrong: string[]
  close(): Promise<void>
}

export async function tab(browser: Browser, options: BrowserContextOptions = {}): Promise<Tab> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, locale: 'en-US', timezoneId: 'UTC', ...options })
  context.setDefaultTimeout(60_000)
  const page = await context.newPage()
  const wrong: string[] = []
  page.on('pageerror', (e) => wrong.push(`thrown: ${e.message}`))
  page.on('dialog', (d) => {
    wrong.push(`a dialog: ${d.message()}`)
    void d.dismiss()
  })
  page.on('console', (m) => {
    // What the node refuses, the browser writes down as an error, too: that is not the page's.
    if (m.type() === 'error' && !/Failed to load resource/.test(m.text())) wrong.push(`console: ${m.text()}`)
  })
  await page.exposeFunction('reportViolation', (v: string) => wrong.push(`policy: ${v}`))
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (e) => {
      void (window as unknown as { reportViolation(v: string): void }).reportViolation(`${e.violatedDirective} ${e.blockedURI} ${e.sample}`)
    })
  })
  return { page, wrong, close: () => context.close() }
}

/** A one-time code of the node, as `shallot dashboard` gets it. */
export async function code(node: Node): Promise<string> {
  const r = await fetch(`${node.url}/v1/session:code`, { method: 'POST', headers: { authorization: `Bearer ${node.token}` } })
  expect(r.status).toBe(200)
  return ((await r.json()) as { code: string }).code
}

export async function signedIn(browser: Browser, node: Node, options: BrowserContextOptions = {}): Promise<Tab> {
  const t = await tab(browser, options)
  await t.page.goto(`${node.url}/#code=${await code(node)}`)
  await t.page.getByRole('navigation', { name: 'Screens' }).waitFor()
  return t
}

export async function go(page: Page, path: string, heading: string | RegExp): Promise<void> {
  await page.evaluate((p) => (location.hash = p), `#/${path}`)
  await page.getByRole('heading', { level: 1, name: heading }).waitFor()
}

const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** What axe-core finds wrong with the page as it is, one line each. The page's policy lets no test's script in, so it comes through the browser's debugger. */
export async function axe(page: Page): Promise<string[]> {
  await page.evaluate(axeSource)
  return page.evaluate(async () => {
    const { axe } = window as unknown as {
      axe: { run(): Promise<{ violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] }> }
    }
    const r = await axe.run()
    return r.violations.flatMap((v) =>
      v.nodes.map((n) => `${v.id}: ${n.html.slice(0, 200)} ${n.failureSummary.replaceAll('\n', ' ').slice(0, 300)}`),
    )
  })
}
