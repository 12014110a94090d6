import { describe, expect, test } from 'vitest'
import { byAttempt, byCreation, column, matches, merge, newer, quantile, replace, summarize, type Filter } from './tasks'
import type { HistoryPoint, Task } from './types'

const at = Date.UTC(2026, 10, 27)
function task(id: string, over: Partial<Task> = {}): Task {
  return {
    id,
    type: 'sum',
    state: 'COMPLETED',
    provider: '',
    consumer: '',
    provider_alias: '',
    consumer_alias: '',
    attempts: 1,
    exit_code: 0,
    error: null,
    created_at: new Date(at).toISOString(),
    started_at: null,
    finished_at: null,
    limits: null,
    usage: null,
    result: null,
    history: [],
    labels: {},
    queue_position: 0,
    revision: '1',
    progress: null,
    replicas: 0,
    replica_peers: [],
    ...over,
  }
}
const all: Filter = { state: '', type: '', text: '', within: 0 }

describe('news of tasks', () => {
  const later = new Date(at + 1000).toISOString()

  test('replace what is older, come first when they are new, and never go back', () => {
    const list = [task('b', { created_at: later, revision: '5', state: 'RUNNING' }), task('a')]
    const news = [
      task('b', { created_at: later, revision: '4', state: 'SUBMITTED' }),
      task('a', { revision: '2', state: 'FAILED' }),
      task('c', { created_at: new Date(at + 2000).toISOString() }),
    ]
    expect(merge(list, news, () => true).map((t) => [t.id, t.state])).toEqual([
      ['c', 'COMPLETED'],
      ['b', 'RUNNING'],
      ['a', 'FAILED'],
    ])
  })

  test('revisions are compared as numbers, however long', () => {
    expect(newer(task('a', { revision: '9' }), task('a', { revision: '10' }))).toBe(true)
    expect(newer(task('a', { revision: '18446744073709551615' }), task('a', { revision: '18446744073709551614' }))).toBe(false)
  })

  test('what leaves the filter leaves the list', () => {
    const running = { ...all, state: 'running' }
    const list = [task('a', { state: 'RUNNING' })]
    expect(merge(list, [task('a', { revision: '2' })], (t) => matches(t, running, at))).toEqual([])
  })

  test('times of the same millisecond are told apart', () => {
    const t = (id: string, s: string) => task(id, { created_at: `2026-11-27T00:00:00.${s}Z` })
    expect(merge([], [t('x', '123456'), t('y', '123457')], () => true).map((i) => i.id)).toEqual(['y', 'x'])
  })
})

test.each([
  [{ text: 'BATCH' }, { labels: { batch: '7' } }, true],
  [{ text: 'time_limit' }, { error: { reason: 'TIME_LIMIT', message: '' } }, true],
  [{ text: 'nothing' }, {}, false],
  [{ type: 'wasm' }, {}, false],
  [{ state: 'failed' }, { state: 'EXPIRED' }, true],
  [{ within: 60 }, {}, true],
  [{ within: 5 }, {}, false],
] as [Partial<Filter>, Partial<Task>, boolean][])('filter %j of %j', (f, t, fits) =>
  expect(matches(task('a', t), { ...all, ...f }, at + 10_000)).toBe(fits),
)

test('figures of the last minutes', () => {
  const done = (id: string, ms: number) => task(id, { finished_at: new Date(at + ms).toISOString() })
  const s = summarize(
    [
      done('a', 100),
      done('b', 300),
      task('c', { state: 'RUNNING' }),
      task('d', { state: 'FAILED', finished_at: new Date(at + 1).toISOString() }),
    ],
    at + 60_000,
  )
  expect(s).toEqual({ waiting: 0, running: 1, perMinute: 0.6, p50: 0.1, p99: 0.3, failed: 1 })
  expect(quantile([], 0.5)).toBeUndefined()
})

test('columns of a history', () => {
  const points = [{ time: '2026-11-27T00:00:00Z', latency_p50: '0.25s', cpu: 0.5 }, { time: '2026-11-27T00:00:10Z' }] as HistoryPoint[]
  expect(column(points, 'latency_p50')).toEqual([0.25, null])
  expect(column(points, 'cpu')).toEqual([0.5, null])
})

test('history by attempt, in its order', () => {
  const h = [0, 1, 1, 2, 2].map((attempt) => ({ attempt }))
  expect(byAttempt(h).map((g) => [g.attempt, g.entries.length])).toEqual([
    [0, 1],
    [1, 2],
    [2, 2],
  ])
})

describe('a page of the node in the place of what was known', () => {
  const made = (n: number) => new Date(at + n * 1000).toISOString()
  const row = (id: string, n: number, over: Partial<Task> = {}) => task(id, { created_at: made(n), ...over })
  const ids = (list: { id: string }[]) => list.map((t) => t.id).join('')

  test('has what is new, and not what is gone', () => {
    const list = [row('d', 4), row('c', 3), row('b', 2), row('a', 1)]
    expect(ids(replace(list, [row('e', 5), row('d', 4), row('b', 2)], undefined, false))).toBe('edba')
  })
  test('says nothing of what is before or after it', () => {
    const list = [row('e', 5), row('d', 4), row('c', 3), row('b', 2), row('a', 1)]
    expect(ids(replace(list, [row('b', 2)], row('d', 4), false))).toBe('edba')
    expect(ids(replace(list, [row('b', 2)], row('d', 4), true))).toBe('edb')
    expect(ids(replace(list, [], undefined, true))).toBe('')
  })
  test('does not set a task back', () => {
    const [t] = replace([row('a', 1, { revision: '7' })], [row('a', 1, { revision: '6', state: 'RUNNING' })], undefined, true)
    expect(t?.state).toBe('COMPLETED')
  })
})

test('tasks of one moment and of one second are in order, however their times are written', () => {
  const list = ['00.5Z', '00.500001Z', '00Z', '01.25Z', '00.499Z'].map((s, i) => task(String(i), { created_at: `2026-11-27T00:00:${s}` }))
  expect([...list].sort(byCreation).map((t) => t.id)).toEqual(['3', '1', '0', '4', '2'])
})
