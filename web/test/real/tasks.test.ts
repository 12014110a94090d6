// Tasks: submitted, shown, followed, ended, run again.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { go } from '../support/browser'
import { examples, lone } from '../support/network'
import { endless } from '../support/programs'
import { real } from '../support/real'

const here = real()

test('a sum is submitted, shown and run again', async () => {
  await here.page.getByRole('cell', { name: 'broker' }).waitFor()
  await here.page.keyboard.press('n')
  await here.page.getByRole('heading', { name: 'New task' }).waitFor()
  await here.page.getByRole('button', { name: 'Submit' }).click()
  await here.page.getByText('Give numbers, such as 0.1 0.2.').waitFor()
  await here.page.getByLabel('Numbers').fill('0.1 0.2')
  await here.page.getByLabel('Labels').fill('who=web')
  await here.page.getByRole('button', { name: 'Submit' }).click()
  await here.page.getByText('completed').first().waitFor()
  await expect.poll(() => here.page.locator('pre[aria-label="standard output"]').innerText()).toBe('0.3\n')
  await here.page.getByText('who=web').waitFor()
  await here.page.getByText('Attempt 1').first().waitFor()
  await here.page.getByRole('button', { name: 'Run again' }).click()
  await here.page.getByRole('heading', { name: 'New task' }).waitFor()
  expect(await here.page.getByLabel('Numbers').inputValue()).toBe('0.1 0.2')
  expect(await here.page.getByLabel('Labels').inputValue()).toBe('who=web')
})

test('a program runs with arguments, standard input and files, and its result is downloaded', async () => {
  await here.chooseProgram(join(examples, 'wordcount.wasm'), '60s')
  await here.page.getByLabel('Arguments').fill('-top 1')
  await here.page.getByLabel('Standard input', { exact: true }).fill('shallot shallot onion')
  await here.page.getByRole('button', { name: 'Submit' }).click()
  const out = here.page.locator('pre[aria-label="standard output"]')
  await expect.poll(() => out.innerText(), { timeout: 120_000 }).toContain('2  shallot')
  const [download] = await Promise.all([
    here.page.waitForEvent('download'),
    here.page.getByRole('link', { name: 'Download' }).first().click(),
  ])
  expect(readFileSync(await download.path(), 'utf8')).toBe(await out.innerText())
  await here.page.getByRole('button', { name: 'bytes' }).click()
  await here.page.getByText('00000000').waitFor()

  // The same program again, with a file, which it reads in the place of standard input.
  await here.page.getByRole('button', { name: 'Run again' }).click()
  await here.page.getByText('wordcount.wasm').waitFor()
  expect(await here.page.getByLabel('Arguments').inputValue()).toBe('-top 1')
  await here.page.locator('#inputs').setInputFiles([{ name: 'x.txt', mimeType: 'text/plain', buffer: Buffer.from('papyrus') }])
  await here.page.getByRole('button', { name: 'Submit' }).click()
  await expect.poll(() => out.innerText(), { timeout: 120_000 }).toContain('1  papyrus')
})

test('a file that is dropped is the program; what is none is refused at once', async () => {
  await go(here.page, 'tasks/new', 'New task')
  await here.page.getByRole('radio', { name: 'wasm' }).check()
  const drop = async (name: string, bytes: Buffer) => {
    const data = await here.page.evaluateHandle(
      ([n, b]) => {
        const d = new DataTransfer()
        d.items.add(new File([new Uint8Array(b)], n))
        return d
      },
      [name, [...bytes]] as const,
    )
    await here.page.getByRole('group', { name: 'the program' }).dispatchEvent('drop', { dataTransfer: data })
  }
  await drop('notes.txt', Buffer.from('hello'))
  await here.page.getByText('notes.txt is not WebAssembly').waitFor()
  await drop('endless.wasm', endless)
  await here.page.getByText('endless.wasm').waitFor()
  // Nothing that was chosen is lost by looking at another screen.
  await go(here.page, 'tasks', 'Tasks')
  await go(here.page, 'tasks/new', 'New task')
  await here.page.getByText('endless.wasm').waitFor()
})

test('a running task is cancelled, after one question', async () => {
  await here.chooseProgram({ name: 'endless.wasm', mimeType: 'application/wasm', buffer: endless }, '10m')
  await here.page.getByRole('button', { name: 'Submit' }).click()
  await expect.poll(() => here.state().innerText(), { timeout: 60_000 }).toBe('running')
  await here.page.getByRole('button', { name: 'Cancel' }).click()
  await here.page.getByRole('button', { name: 'Let it run' }).click()
  expect(await here.state().innerText()).toBe('running')
  await here.page.getByRole('button', { name: 'Cancel' }).click()
  await here.page.getByRole('button', { name: 'Cancel the task' }).click()
  await expect.poll(() => here.state().innerText(), { timeout: 60_000 }).toBe('cancelled')
})

test('tasks are filtered, and change by themselves', async () => {
  await here.submit({ type: 'sum', sum: { addends: ['1'] }, labels: { lot: 'filter-me' } })
  await go(here.page, 'tasks', 'Tasks')
  const rows = here.page.getByRole('table', { name: 'Tasks' }).locator('[data-row]')
  await expect.poll(() => rows.count()).toBeGreaterThan(0)
  await here.page.getByLabel('Text').fill('filter-me')
  await expect.poll(() => rows.count()).toBe(1)
  await here.submit({ type: 'sum', sum: { addends: ['2'] }, labels: { lot: 'filter-me' } })
  await expect.poll(() => rows.count(), { timeout: 30_000 }).toBe(2)
  await here.page.getByLabel('State').selectOption('failed')
  await here.page.getByText('No task fits').waitFor()
  await here.page.getByRole('button', { name: 'Show all tasks' }).click()
  await expect.poll(() => rows.count()).toBeGreaterThan(1)
  await here.page.reload()
  await here.page.getByRole('heading', { name: 'Tasks' }).waitFor()
})

test('a provider that dies while its task is watched: the task goes on elsewhere', async () => {
  const { invite } = await here.rest<{ invite: string }>('/v1/invites', { method: 'POST', body: '{}' })
  const victim = await lone(invite)
  try {
    await expect
      .poll(async () => (await here.rest<{ peers: { peer_id: string }[] }>('/v1/peers')).peers.map((p) => p.peer_id), { timeout: 60_000 })
      .toContain(victim.peer)
    const { upload_id } = await here.upload(endless)
    const spec = { type: 'wasm', wasm: { module: { upload_id } }, limits: { time: '600s' }, placement: { redirect: false } }
    // Which provider is drawn is chance: those that went elsewhere are ended, until one went to the victim.
    let id = ''
    for (let n = 0; id === '' && n < 60; n++) {
      const task = await here.submit(spec)
      let at = ''
      await expect
        .poll(async () => {
          const t = await here.rest<{ provider: string; state: string }>(`/v1/tasks/${task.id}`)
          at = t.provider
          return t.state
        })
        .toBe('RUNNING')
      if (at === victim.peer) id = task.id
      else await here.rest(`/v1/tasks/${task.id}:cancel`, { method: 'POST', body: '{}' })
    }
    expect(id).not.toBe('')
    await go(here.page, `tasks/${id}`, `Task ${id.slice(0, 8)}`)
    await expect.poll(() => here.state().innerText(), { timeout: 60_000 }).toBe('running')
    await victim.kill()
    await here.page.getByRole('heading', { name: 'Attempt 2', exact: true }).waitFor({ timeout: 120_000 })
    await here.page.getByText('lease lost').first().waitFor()
    await expect.poll(() => here.state().innerText(), { timeout: 60_000 }).toBe('running')
    await here.rest(`/v1/tasks/${id}:cancel`, { method: 'POST', body: '{}' })
    await expect.poll(() => here.state().innerText(), { timeout: 60_000 }).toBe('cancelled')
  } finally {
    await victim.close()
  }
}, 300_000)

test('why a task went where it went', async () => {
  const { id } = await here.submit({ type: 'sum', sum: { addends: ['3'] } })
  await go(here.page, `tasks/${id}`, /Task/)
  const why = here.page.getByRole('region', { name: 'Placement' })
  await why.getByText('chosen').first().waitFor()
})
