// What the node is, what it offers, and what the page does while it is away.
import { readFileSync } from 'node:fs'
import jsQR from 'jsqr'
import { expect, test } from 'vitest'
import { go } from '../support/browser'
import { lone } from '../support/network'
import { real } from '../support/real'

const here = real()

test('the overview says what this node is and how its processes are', async () => {
  await here.page.getByRole('cell', { name: 'broker' }).waitFor()
  for (const p of ['task', 'node']) await here.page.getByRole('cell', { name: p, exact: true }).waitFor()
  await expect.poll(() => here.page.locator('.figures').innerText()).toMatch(/Providers\s+2/)
  await here.page.getByText('nothing for others: it is a consumer').waitFor()
})

test('the network shows its peers, and each of them', async () => {
  await go(here.page, 'network', 'Network')
  const rows = here.page.getByRole('table', { name: 'Peers' }).locator('[data-row]')
  await expect.poll(() => rows.count()).toBeGreaterThanOrEqual(2)
  await here.page.locator('svg .dot').first().hover()
  await here.page.locator('svg .tip').waitFor()
  await rows.first().getByRole('link').click()
  await here.page.getByRole('cell', { name: 'wasm', exact: true }).waitFor()
  await here.page.getByRole('meter', { name: 'Memory' }).waitFor()
})

test('content is put, looked up, downloaded, verified, let go and collected', async () => {
  await go(here.page, 'content', 'Content')
  await here.page
    .locator('#put-files')
    .setInputFiles([{ name: '"><script>alert(1)</script>.txt', mimeType: 'text/plain', buffer: Buffer.from('kept words') }])
  const cid = await here.page
    .locator('section', { has: here.page.getByRole('heading', { name: 'Put files' }) })
    .locator('.mono')
    .innerText()
  expect(cid).toMatch(/^bafk/)
  await here.page.getByRole('textbox', { name: 'CID' }).fill(cid)
  await here.page.getByRole('button', { name: 'Look it up' }).click()
  await here.page.getByText('all of it is on this node').waitFor()
  const [download] = await Promise.all([
    here.page.waitForEvent('download'),
    here.page.getByRole('link', { name: 'Download', exact: true }).first().click(),
  ])
  expect(readFileSync(await download.path(), 'utf8')).toBe('kept words')
  await here.page.getByRole('button', { name: 'Verify everything' }).click()
  await here.page.getByText('all are good').waitFor()
  await here.page
    .getByRole('button', { name: /^Unpin/ })
    .first()
    .click()
  await here.page.getByRole('button', { name: 'Unpin it' }).click()
  await here.page.getByText('Nothing is kept').waitFor()
  await here.page.getByRole('button', { name: 'Remove what nobody keeps' }).click()
  await here.page.getByRole('button', { name: 'Remove it' }).click()
  await here.page.getByText(/^Removed/).waitFor()
})

test('history, findings and settings are those of the node', async () => {
  const { page } = here
  await page.getByRole('img', { name: /^Queue: waiting \d/ }).waitFor({ timeout: 60_000 })
  await page.getByRole('img', { name: /^Disk: used [\d.]+ [KMG]?i?B/ }).waitFor()

  // What the node finds is what the page says, no more and no less.
  const { findings } = await here.rest<{ findings: { check: string; verdict: string; detail: string; mend: string }[] }>(
    '/v1/node:diagnose',
  )
  expect(findings.length).toBeGreaterThan(3)
  const region = page.getByRole('region', { name: 'Findings' })
  const bad = findings.filter((f) => f.verdict !== 'ok')
  if (bad.length === 0) await region.getByText(`${findings.length} things were looked at`).waitFor()
  for (const f of bad) {
    await region.getByText(f.check, { exact: true }).first().waitFor()
    if (f.mend) await region.getByText(f.mend).first().waitFor()
  }

  await go(page, 'settings', 'Settings')
  const { processes } = await here.rest<{ processes: { name: string; settings: { name: string; value: string; origin: string }[] }[] }>(
    '/v1/settings',
  )
  const http = processes.find((p) => p.name === 'gateway')?.settings.find((s) => s.name === 'http')
  expect(http?.value).toMatch(/127\.0\.0\.1/)
  await page.getByRole('searchbox', { name: 'Find settings' }).fill('http')
  await page.getByRole('row', { name: new RegExp(`^http ${http?.value.replaceAll('.', '\\.')}`) }).waitFor()
})

test('a token is made, opens REST, and is revoked', async () => {
  const { page } = here
  await go(page, 'settings', 'Settings')
  await page.getByLabel('Name of a new token').fill('from-the-page')
  await page.getByRole('button', { name: 'Add' }).click()
  const token = await page.getByRole('status').locator('code').innerText()
  const asked = () => fetch(`${here.net.consumer.url}/v1/node`, { headers: { authorization: `Bearer ${token}` } }).then((r) => r.status)
  expect(await asked()).toBe(200)
  await page.getByRole('button', { name: 'Revoke from-the-page' }).click()
  await page.getByRole('button', { name: 'Revoke it' }).click()
  await expect.poll(asked, { timeout: 30_000 }).toBe(401)
  const { clients, reason } = await here.rest<{ clients: unknown[]; reason: string }>('/v1/clients')
  const region = page.getByRole('region', { name: 'Client certificates' })
  if (clients.length === 0) await region.getByText(reason || 'None.').waitFor()
  else await region.getByRole('table').waitFor()
})

test('an invite is a text and a picture of it, and who has it is in', async () => {
  const { page } = here
  await go(page, 'settings', 'Settings')
  await page.getByRole('button', { name: 'Make an invite' }).click()
  const text = await page.getByRole('textbox', { name: 'The invite' }).inputValue()
  const picture = page.getByRole('img', { name: 'The invite as a QR code' })
  expect(decode(await picture.getAttribute('viewBox'), await picture.locator('path').getAttribute('d'))).toBe(text)
  await page.getByText('It is of use on this machine only').waitFor()
  const guest = await lone(text)
  try {
    await go(page, 'network', 'Network')
    await page.getByRole('searchbox', { name: 'Find peers' }).fill(guest.peer)
    await expect.poll(() => page.getByRole('table', { name: 'Peers' }).locator('[data-row]').count(), { timeout: 60_000 }).toBe(1)
  } finally {
    await guest.close()
  }
})

/** What a reader of QR codes sees in squares that are drawn as a path. */
function decode(box: string | null, path: string | null): string | undefined {
  const [, , size = 0] = (box ?? '').split(' ').map(Number)
  const scale = 4
  const width = size * scale
  const pixels = new Uint8ClampedArray(width * width * 4).fill(255)
  for (const [, x, y] of (path ?? '').matchAll(/M(\d+) (\d+)h1v1h-1z/g))
    for (let i = 0; i < scale * scale; i++) {
      const at = ((Number(y) * scale + Math.floor(i / scale)) * width + Number(x) * scale + (i % scale)) * 4
      pixels.fill(0, at, at + 3)
    }
  return jsQR(pixels, width, width)?.data
}

test('while the node is away a banner says so, and nothing that was typed is lost', async () => {
  await go(here.page, 'tasks/new', 'New task')
  await here.page.getByRole('radio', { name: 'sum' }).check()
  await here.page.getByLabel('Numbers').fill('4 5')
  await here.page.context().setOffline(true)
  await here.page.getByText(/^The node is away/).waitFor()
  await here.page.getByRole('button', { name: 'Submit' }).click()
  await here.page.getByText('Not submitted').waitFor()
  expect(await here.page.getByLabel('Numbers').inputValue()).toBe('4 5')
  await here.page.context().setOffline(false)
  await expect.poll(() => here.page.getByText(/^The node is away/).count(), { timeout: 60_000 }).toBe(0)
  await here.page.getByRole('button', { name: 'Try again' }).click()
  await expect.poll(() => here.page.locator('pre[aria-label="standard output"]').innerText(), { timeout: 60_000 }).toBe('9\n')
})
