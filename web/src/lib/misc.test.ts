import { afterEach, expect, test, vi } from 'vitest'
import { ApiError, call, url } from './api'
import { gridFor } from './grid'
import { rateOf } from './jobview.svelte'
import { gauge } from './prometheus'
import { href, parseRoute } from './route.svelte'

afterEach(() => vi.unstubAllGlobals())

test('addresses of the page', () => {
  expect(parseRoute('#/tasks/abc?state=failed&text=a%20b').path).toEqual(['tasks', 'abc'])
  expect(parseRoute('#/tasks/abc?state=failed&text=a%20b').query.get('text')).toBe('a b')
  expect(parseRoute('').path).toEqual([])
  expect(parseRoute('#/%E0%A4%A').path).toEqual(['%E0%A4%A'])
  expect(href('network', 'p/../x')).toBe('#/network/p%2F..%2Fx')
})

test('addresses of REST', () => {
  expect(url('/v1/tasks', { states: ['A', 'B'], text: 'a&b', page_size: 5, type: '', follow: false, x: undefined })).toBe(
    '/v1/tasks?states=A&states=B&text=a%26b&page_size=5',
  )
  expect(url('/v1/node')).toBe('/v1/node')
})

test('what an answer means', async () => {
  const answer = (status: number, body: unknown) =>
    vi.stubGlobal('fetch', () => Promise.resolve(new Response(typeof body === 'string' ? body : JSON.stringify(body), { status })))
  const error = async () => (await call('/x').catch((e: unknown) => e)) as ApiError
  answer(404, { reason: 'PATH_NOT_FOUND', message: 'there is no GET /x' })
  expect((await error()).notOffered).toBe(true)
  answer(404, { reason: 'TASK_NOT_FOUND', message: 'there is no such task' })
  expect(await error()).toMatchObject({ notOffered: false, away: false, message: 'there is no such task' })
  answer(502, '<html>Bad Gateway')
  expect(await error()).toMatchObject({ away: true, message: 'The node answered with status 502.' })
  vi.stubGlobal('fetch', () => Promise.reject(new TypeError('Failed to fetch')))
  expect(await error()).toMatchObject({ away: true, status: 0 })
})

test('gauges in the text of Prometheus', () => {
  const text = '# TYPE a_bytes gauge\na_bytes 12\na_bytes_total 5\nb_bytes{host="1"} 1e3\nb_bytes{host="2"} 24\n'
  expect([gauge(text, 'a_bytes'), gauge(text, 'b_bytes'), gauge(text, 'c')]).toEqual([12, 1024, undefined])
})

test('the squares of a job fit', () => {
  for (const total of [1, 60, 1000, 10_000, 100_000])
    for (const width of [300, 1000, 2200]) {
      const g = gridFor(total, width, 420)
      expect(g.columns * g.rows).toBeGreaterThanOrEqual(total)
      expect(g.columns * (g.cell + g.gap) - g.gap).toBeLessThanOrEqual(width)
    }
})

test('ends a second', () => {
  expect(rateOf([{ at: 0, done: 5 }])).toBeUndefined()
  expect(
    rateOf([
      { at: 0, done: 5 },
      { at: 10_000, done: 25 },
    ]),
  ).toBe(2)
})
