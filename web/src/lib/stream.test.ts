import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ApiError } from './api'
import { keep, Lines, LONGEST_LINE, parseLine, results } from './stream'
import { backoff } from './wait'

class Page extends EventTarget {
  hidden = false
}
let page: Page
beforeEach(() => {
  page = new Page()
  vi.stubGlobal('document', page)
  vi.useFakeTimers()
})
afterEach(() => {
  vi.unstubAllGlobals()
  vi.useRealTimers()
})

test('lines that come in pieces', () => {
  const l = new Lines()
  expect(l.push('{"a":')).toEqual([])
  expect(l.push('1}\n{"b":2}\n\n{')).toEqual(['{"a":1}', '{"b":2}'])
  expect(() => l.push('x'.repeat(LONGEST_LINE + 1))).toThrow(ApiError)
})

test('a line is a result, or says why the stream ends', () => {
  expect(parseLine('{"result":{"x":1}}')).toEqual({ x: 1 })
  expect(() => parseLine('{"error":{"reason":"TASK_NOT_FOUND","message":"there is no such task"}}')).toThrow('there is no such task')
})

test('characters that lie across pieces of a body are whole', async () => {
  const bytes = new TextEncoder().encode('{"result":"häß"}\n{"result":"💧"}\n')
  const body = new ReadableStream({
    start(c) {
      for (const b of bytes) c.enqueue(new Uint8Array([b]))
      c.close()
    },
  })
  vi.stubGlobal('fetch', () => Promise.resolve(new Response(body)))
  const got: string[] = []
  for await (const r of results<string>('/x', new AbortController().signal)) got.push(r)
  expect(got).toEqual(['häß', '💧'])
})

test('pauses grow to 15 seconds, and are of random length', () => {
  expect([0, 1, 2, 3, 4, 5, 50].map((n) => backoff(n, () => 1))).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000])
  expect(backoff(3, () => 0)).toBe(2000)
})

describe('a stream that is kept', () => {
  const broken = () => Promise.reject(new ApiError(0, 'BROKEN', 'it broke'))

  test('is tried again until it is over, and says so in between', async () => {
    let tries = 0
    const said: (string | undefined)[] = []
    const end = keep(
      {
        once: (_s, alive) => {
          if (++tries < 3) return broken()
          alive()
          return Promise.resolve(true)
        },
        state: (e) => said.push(e?.reason),
      },
      new AbortController().signal,
    )
    await vi.runAllTimersAsync()
    await end
    expect(tries).toBe(3)
    expect(said).toEqual(['BROKEN', 'BROKEN', undefined])
  })

  test('is not tried again where that cannot help', async () => {
    let tries = 0
    const end = keep(
      { once: () => (tries++, Promise.reject(new ApiError(404, 'PATH_NOT_FOUND', 'no such call'))) },
      new AbortController().signal,
    )
    await vi.runAllTimersAsync()
    await end
    expect(tries).toBe(1)
  })

  test('is closed while nobody looks, and opened again', async () => {
    let open = 0
    const stop = new AbortController()
    const end = keep(
      {
        once: (signal) => {
          open++
          return new Promise((_resolve, reject) => signal.addEventListener('abort', () => (open--, reject(new Error('aborted')))))
        },
      },
      stop.signal,
    )
    await vi.advanceTimersByTimeAsync(0)
    expect(open).toBe(1)
    page.hidden = true
    page.dispatchEvent(new Event('visibilitychange'))
    await vi.advanceTimersByTimeAsync(60_000)
    expect(open).toBe(0)
    page.hidden = false
    page.dispatchEvent(new Event('visibilitychange'))
    await vi.advanceTimersByTimeAsync(0)
    expect(open).toBe(1)
    stop.abort()
    await end
    expect(open).toBe(0)
  })
})
