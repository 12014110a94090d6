// An anonymous node over a private Tor network: what its page shows, and that neither the page nor what REST told it says who or where another node is.
import { existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { go, launch, signedIn } from './support/browser'
import { network, reach, run, type Network } from './support/network'

const tor = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'].some((d) => existsSync(join(d, 'tor')))
if (!tor && process.env['CI'] === 'true') throw new Error('the program tor is not here; to get it: apt-get install tor')
if (!tor) console.log('left out: the program tor is not here, and the anonymous node needs it; to get it: apt-get install tor')

describe.runIf(tor)('an anonymous node', () => {
  let browser: Browser
  let net: Network
  let close = () => Promise.resolve()

  beforeAll(async () => {
    browser = await launch()
    const started = await network({ providers: 2, anonymous: true })
    net = reach(started.nodes)
    close = started.close
  }, 300_000)
  afterAll(async () => {
    await browser?.close()
    await close()
  })

  test('shows its fence, tor and aliases, and nothing that says who or where others are', async () => {
    const secrets = await others(net)
    expect(secrets.length).toBeGreaterThanOrEqual(4)
    const t = await signedIn(browser, net.consumer)
    const { page } = t
    const answers: { path: string; body: string }[] = []
    const reading: Promise<void>[] = []
    page.on('response', (r) => {
      const path = new URL(r.url()).pathname
      // A stream has no end to wait for: what it says of a task is what GetTask does.
      if (!path.startsWith('/v1/') || /:watch$|\/logs$/.test(path)) return
      reading.push(
        r
          .text()
          .then((body) => void answers.push({ path, body }))
          .catch(() => undefined),
      )
    })
    const seen: string[] = []
    const look = async () => {
      await expect.poll(() => page.locator('[aria-busy=true]').count(), { timeout: 60_000 }).toBe(0)
      seen.push(await page.content())
    }

    await page.reload()
    await page.getByText('enclosed: its processes have no network but tor').waitFor()
    await page.locator('dt', { hasText: 'Tor' }).locator('+ dd').getByText('online').waitFor()
    await look()

    await go(page, 'tasks/new', 'New task')
    await page.getByRole('radio', { name: 'sum' }).check()
    await page.getByLabel('Numbers').fill('40 2')
    await page.getByRole('button', { name: 'Submit' }).click()
    await expect.poll(() => page.locator('pre[aria-label="standard output"]').innerText(), { timeout: 120_000 }).toBe('42\n')
    await look()
    await go(page, 'tasks', 'Tasks')
    await page.locator('[data-row]').first().waitFor()
    await look()

    await go(page, 'network', 'Network')
    const rows = page.getByRole('table', { name: 'Peers' }).locator('[data-row]')
    await expect.poll(() => rows.count(), { timeout: 60_000 }).toBe(2)
    for (const name of await rows.getByRole('link').allInnerTexts()) expect(name).toMatch(/^p-[0-9a-z]{8}$/)
    await look()
    await rows.first().getByRole('link').click()
    await page.getByRole('cell', { name: 'wasm', exact: true }).waitFor()
    await look()
    for (const [path, heading] of [
      ['content', 'Content'],
      ['settings', 'Settings'],
    ] as const) {
      await go(page, path, heading)
      await look()
    }
    await Promise.all(reading)

    for (const path of ['/v1/node', '/v1/tasks', '/v1/peers', '/v1/metrics']) expect(answers.map((a) => a.path)).toContain(path)
    const texts = [...answers, ...seen.map((body, i) => ({ path: `page ${i}`, body }))]
    for (const { path, body } of texts) {
      for (const s of secrets) expect(body.includes(s), `${path} has what belongs to another node`).toBe(false)
      expect(body.match(/[a-z2-7]{56}\.onion|\/onion3\/[a-z2-7]{56}|12D3Koo[1-9A-HJ-NP-Za-km-z]{40,}/g) ?? [], path).toEqual([])
    }
    // Addresses of IP: those on which this machine's own processes are set to listen are all that there are.
    for (const { path, body } of texts.filter((x) => x.path !== '/v1/settings'))
      expect(
        (body.match(/\b\d{1,3}(?:\.\d{1,3}){3}\b/g) ?? []).filter((a) => !a.startsWith('127.')),
        path,
      ).toEqual([])
    expect(t.wrong).toEqual([])
    await t.close()
  })
})

/** The peer ids of the providers and where each is reached, from their own homes. */
async function others(net: Network): Promise<string[]> {
  const homes = readdirSync(net.home)
    .filter((d) => d.startsWith('provider'))
    .map((d) => join(net.home, d))
  const nodes = await Promise.all(
    homes.map(
      async (h) =>
        JSON.parse(await run('--home', h, 'node', '--show-addresses', '--output', 'json')) as { peer_id: string; addresses: string[] },
    ),
  )
  return nodes.flatMap((n) => [n.peer_id, ...n.addresses.map((a) => /\/onion3\/([a-z2-7]{56})/.exec(a)?.[1] ?? '')]).filter((s) => s !== '')
}
