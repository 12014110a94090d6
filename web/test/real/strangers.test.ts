// What programs and peers say is text, and a result is a picture only where its bytes are one.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { go } from '../support/browser'
import { examples } from '../support/network'
import { png } from '../support/programs'
import { real } from '../support/real'

const here = real()

test('what strangers wrote is text, wherever it is shown', async () => {
  const evil = `<img src=x onerror="alert(1)"><script>alert(2)</script><svg onload=alert(3)>"'&lt;`
  const { upload_id } = await here.upload(readFileSync(join(examples, 'wordcount.wasm')))
  const { id } = await here.submit({
    type: 'wasm',
    wasm: { module: { upload_id }, stdin: { inline: Buffer.from(evil.replaceAll(' ', '/')).toString('base64') }, args: ['-top', '9'] },
    labels: { [evil.slice(0, 60)]: evil },
  })
  await go(here.page, `tasks/${id}`, /Task/)
  await here.page.getByText('<script>alert(2)</script>').first().waitFor()
  await here.page.locator('pre[aria-label="standard output"]').waitFor()
  await here.page.evaluate((h) => (location.hash = h), `#/tasks/${encodeURIComponent('<img src=x onerror=alert(1)>')}`)
  await here.page.getByText('There is no such task here').or(here.page.getByText('Could not load the task')).waitFor()
  await go(here.page, `tasks?text=${encodeURIComponent(evil)}`, 'Tasks')
  await here.page.locator('[data-row]').first().waitFor()
  expect(await here.page.locator('img, main script, main svg[onload]').count()).toBe(0)
})

test('a picture is shown as one, and an SVG as text', async () => {
  // What a program wrote: the same bytes come back when they are its standard input and it counts no words of them, so the test answers for the node.
  const { id } = await here.submit({ type: 'sum', sum: { addends: ['7'] } })
  let body: Buffer = png
  await here.page.route('**/result?body=stdout', (r) => r.fulfill({ body, contentType: 'application/octet-stream' }))
  await go(here.page, `tasks/${id}`, /Task/)
  const img = here.page.locator('main img')
  await expect.poll(() => img.evaluate((i: HTMLImageElement) => i.naturalWidth)).toBe(1)
  expect(await img.getAttribute('src')).toMatch(/^blob:/)
  body = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><text>x</text></svg>')
  await here.page.reload()
  await here.page.locator('pre[aria-label="standard output"]').getByText('<svg xmlns').waitFor()
  expect(await here.page.locator('main img').count()).toBe(0)
})
