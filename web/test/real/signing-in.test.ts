// Sessions: how they begin, how long they last, how they end.
import { describe, expect, test } from 'vitest'
import { axe, code, go, signedIn, tab } from '../support/browser'
import { run } from '../support/network'
import { real } from '../support/real'

const here = real()

describe('signing in', () => {
  test('the code is gone from the address, is good once, and the session lasts over a reload', async () => {
    const fresh = await tab(here.browser)
    const c = await code(here.net.consumer)
    await fresh.page.goto(`${here.net.consumer.url}/#code=${c}`)
    await fresh.page.getByRole('heading', { name: 'Overview' }).waitFor()
    expect(fresh.page.url()).not.toContain(c)
    await fresh.page.reload()
    await fresh.page.getByRole('heading', { name: 'Overview' }).waitFor()
    // The browser's history has the code: the session that it began goes on.
    await fresh.page.goto(`${here.net.consumer.url}/?again#code=${c}`)
    await fresh.page.getByRole('heading', { name: 'Overview' }).waitFor()
    const other = await tab(here.browser)
    await other.page.goto(`${here.net.consumer.url}/#code=${c}`)
    await other.page.getByRole('alert').waitFor()
    await other.page.getByText('shallot dashboard', { exact: true }).waitFor()
    expect([...fresh.wrong, ...other.wrong]).toEqual([])
    await fresh.close()
    await other.close()
  })

  test('a token signs in, a wrong one does not, and signing out ends it', async () => {
    const fresh = await tab(here.browser)
    const p = fresh.page
    await p.goto(here.net.consumer.url)
    await p.getByLabel("Or sign in with the node's token").fill('wrong')
    await p.getByRole('button', { name: 'Sign in' }).click()
    await p.getByRole('alert').waitFor()
    await p.getByLabel("Or sign in with the node's token").fill(here.net.consumer.token)
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

test('shallot dashboard prints an address that opens it', async () => {
  const out = await run('--home', here.net.consumer.home, 'dashboard', '--no-open')
  const url = /http:\/\/\S+#code=\S+/.exec(out)?.[0] ?? ''
  const fresh = await tab(here.browser)
  await fresh.page.goto(url)
  await fresh.page.getByRole('heading', { name: 'Overview' }).waitFor()
  await fresh.close()
})

test('a provider has its own dashboard', async () => {
  const { peer_id } = await here.rest<{ peer_id: string }>('/v1/node', {}, here.net.provider)
  await here.submit({ type: 'sum', sum: { addends: ['1'] }, placement: { providers: [peer_id] } })
  const own = await signedIn(here.browser, here.net.provider)
  await own.page.getByRole('meter', { name: 'Slots' }).waitFor()
  await go(own.page, 'tasks', 'Tasks')
  await own.page.locator('[data-row]').first().waitFor()
  await go(own.page, 'jobs', 'Jobs')
  await own.page.getByText('Jobs belong to consumers').waitFor()
  expect(await axe(own.page)).toEqual([])
  expect(own.wrong).toEqual([])
  await own.close()
})
