import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { room, TaskList } from './tasklist.svelte'

const begin = Date.UTC(2026, 10, 27)
const task = (n: number, state = 'COMPLETED') => ({
  id: n.toString(16).padStart(32, '0'),
  type: 'sum',
  state,
  created_at: new Date(begin + n * 10).toISOString(),
  revision: state === 'COMPLETED' ? '2' : '1',
})

/** A node with so many tasks, of which it tells in a stream. */
class Node {
  count = 0
  tell: (m: object) => void = () => undefined
  fetch = (path: string) => {
    const u = new URL(path, 'http://node')
    if (u.pathname === '/v1/tasks:watch') {
      const body = new ReadableStream({
        start: (c) => {
          this.tell = (result) => c.enqueue(new TextEncoder().encode(JSON.stringify({ result }) + '\n'))
          this.tell({ missed: true })
        },
      })
      return Promise.resolve(new Response(body))
    }
    const before = Date.parse(u.searchParams.get('created_before') ?? '') || Infinity
    const newest = Math.min(Number(u.searchParams.get('page_token') || this.count - 1), Math.ceil((before - begin) / 10) - 1)
    const size = Math.min(Number(u.searchParams.get('page_size')), newest + 1)
    const tasks = Array.from({ length: size }, (_, i) => task(newest - i))
    return Promise.resolve(Response.json({ tasks, next_page_token: newest >= size ? String(newest - size) : '' }))
  }
}

let node: Node
let stop: AbortController
beforeEach(() => {
  node = new Node()
  stop = new AbortController()
  vi.stubGlobal('document', { hidden: false, addEventListener: () => undefined, removeEventListener: () => undefined })
  vi.stubGlobal('fetch', node.fetch)
})
afterEach(() => {
  stop.abort()
  vi.unstubAllGlobals()
})

const numbers = (list: TaskList) => list.tasks.map((t) => parseInt(t.id, 16))
/** All from the newest on, none left out and none twice. */
const whole = (list: TaskList) => numbers(list).every((n, i) => n === node.count - 1 - i)

async function opened(count: number): Promise<TaskList> {
  node.count = count
  const list = new TaskList({ state: '', type: '', text: '', within: 0 }, stop.signal)
  await vi.waitFor(() => expect(list.tasks.length).toBe(Math.min(count, 500)))
  return list
}

test.each([700, 3000, 9000])('%i that were missed leave no hole, and older ones follow', async (missed) => {
  const list = await opened(1200)
  node.count += missed
  node.tell({ missed: true })
  await vi.waitFor(() => expect(numbers(list)[0]).toBe(node.count - 1))
  await vi.waitFor(() => expect(whole(list)).toBe(true))
  const had = list.tasks.length
  await list.loadMore()
  expect(list.tasks.length).toBeGreaterThan(had + 490) // those of one moment come twice
  expect(whole(list)).toBe(true)
})

test('news do not make the list longer and longer, and what they pushed out comes again', async () => {
  const list = await opened(600)
  for (let i = 0; i < 2 * room; i++) {
    const n = node.count++
    node.tell({ task: task(n, 'RUNNING') })
    node.tell({ task: task(n) })
  }
  await vi.waitFor(() => expect(numbers(list)[0]).toBe(node.count - 1), { timeout: 30_000 })
  expect(list.tasks.length).toBe(room)
  expect(list.more).toBe(true)
  await list.loadMore()
  expect(list.tasks.length).toBeGreaterThan(room + 490)
  expect(whole(list)).toBe(true)
})

test('there is no more when all are there', async () => {
  const list = await opened(300)
  expect(list.more).toBe(false)
  expect(whole(list)).toBe(true)
})
