// A node that is busy for an hour, which goes by as fast as its pages take it: tasks, metrics, logs and all else change with every second of its time.
import type { ServerResponse } from 'node:http'
import { fake } from './fake'
import { json, type Handler } from './site'

const perSecond = 5 // tasks, each of which says three times that it has changed
const iso = (ms: number) => new Date(ms).toISOString()
const id = (n: number) => n.toString(16).padStart(32, '0')

export interface Busy {
  handler: Handler
  /** How often each path was asked for. */
  asked: Map<string, number>
  /** Tasks' messages that were written to streams. */
  told(): number
  /** Goes on to this second of the hour, a second every so many milliseconds, slower where a page does not read what is written to it. */
  until(second: number, every: number): Promise<void>
}

export const watched = id(0xffff)

export function busy(): Busy {
  const begin = Date.now()
  const rest = fake({ tasks: 0, peers: 130, shards: 300, anonymous: false })
  const asked = new Map<string, number>()
  const streams = { tasks: new Set<ServerResponse>(), task: new Set<ServerResponse>(), logs: new Set<ServerResponse>() }
  const late = new Set<ServerResponse>()
  let second = 0
  let messages = 0
  const now = () => begin + second * 1000

  const states = ['SUBMITTED', 'RUNNING', 'COMPLETED']
  const task = (n: number, age = Math.min(2, second - Math.floor(n / perSecond))) => {
    const made = begin + Math.floor((n * 1000) / perSecond)
    return {
      id: id(n),
      type: n % 3 ? 'sum' : 'wasm',
      state: states[Math.max(0, age)],
      provider: `peer-${n % 130}`,
      provider_alias: '',
      consumer: '',
      consumer_alias: '',
      attempts: 1,
      exit_code: age < 2 ? null : 0,
      error: null,
      created_at: iso(made),
      started_at: iso(made + 1000),
      finished_at: age < 2 ? null : iso(made + 1000 + (n % 900)),
      limits: { time: '600s', memory: '536870912', output: '67108864' },
      usage: null,
      result: null,
      history: [] as unknown[],
      labels: { batch: String(n % 97), note: `number ${n} of a busy hour` },
      queue_position: 0,
      revision: String(age + 1),
      progress: null,
      replicas: 0,
      replica_peers: [],
    }
  }
  // Most are asked for again and again after they have ended.
  const texts: string[] = []
  const text = (n: number): string =>
    second - Math.floor(n / perSecond) < 2 ? JSON.stringify(task(n)) : (texts[n] ??= JSON.stringify(task(n)))
  const one = () => ({
    ...task(0, 1),
    id: watched,
    type: 'wasm',
    created_at: iso(begin),
    attempts: 3,
    revision: String(second + 1),
    progress: { fraction: second / 3600, text: `minute ${Math.floor(second / 60)}`, at: iso(now()) },
    history: Array.from({ length: 9 }, (_, i) => ({
      at: iso(begin + i * 120_000),
      attempt: 1 + Math.floor(i / 3),
      state: ['SUBMITTED', 'RUNNING', 'PENDING'][i % 3],
      what: ['SUBMITTED', 'STARTED', 'LEASE_LOST'][i % 3],
      peer_id: `peer-${i}`,
      alias: '',
      detail: '',
    })),
  })
  const points = (span: number) =>
    Array.from({ length: 180 }, (_, i) => {
      const at = now() - (180 - i) * (span / 180) * 1000
      const w = Math.sin(at / 60_000)
      return {
        time: iso(at),
        waiting: Math.round(6 + 6 * w),
        running: Math.round(3 + 2 * w),
        finished: 600,
        failed: 0,
        latency_p50: `${(0.05 + 0.02 * w).toFixed(4)}s`,
        latency_p99: `${(0.4 + 0.2 * w).toFixed(4)}s`,
        cpu: 0.5 + 0.4 * w,
        memory: String(Math.round(2e10 + 1e9 * w)),
        disk_used: String(5e11 + second * 1e6),
        disk_free: String(5e11 - second * 1e6),
      }
    })

  const open = (set: Set<ServerResponse>, response: ServerResponse, type: string) => {
    response.writeHead(200, { 'content-type': type })
    response.flushHeaders()
    set.add(response)
    response.on('close', () => (set.delete(response), late.delete(response)))
    return true
  }
  // As a node does: who does not read is told afterwards that something was missed.
  const write = (response: ServerResponse, text: string) => {
    if (late.has(response)) return
    if (response.write(text)) return
    late.add(response)
    response.once('drain', () => {
      late.delete(response)
      if (streams.tasks.has(response)) response.write('{"result":{"missed":true}}\n')
    })
  }

  function pass() {
    second++
    const first = (second - 2) * perSecond
    const lines: string[] = []
    for (let n = Math.max(0, first); n < (second + 1) * perSecond; n++) lines.push(`{"result":{"task":${text(n)}}}`)
    messages += lines.length
    for (const r of streams.tasks) write(r, lines.join('\n') + '\n')
    for (const r of streams.task) write(r, JSON.stringify({ result: { task: { ...one(), history: [] } } }) + '\n')
    if (second % 2)
      for (const r of streams.logs)
        write(r, Array.from({ length: 10 }, (_, i) => `${iso(now())} line ${i} ${'of a log '.repeat(8)}\n`).join(''))
  }

  return {
    asked,
    told: () => messages,
    until: (goal, every) =>
      new Promise((resolve) => {
        const timer = setInterval(() => {
          if (second < goal) return pass()
          clearInterval(timer)
          resolve()
        }, every)
      }),
    handler: async (request, response) => {
      const u = new URL(request.url ?? '/', 'http://x')
      const path = u.pathname
      asked.set(path, (asked.get(path) ?? 0) + 1)
      const say = (body: unknown) => (json(response, 200, body), true)
      if (path === '/v1/tasks:watch') {
        open(streams.tasks, response, 'application/json')
        return (response.write('{"result":{"missed":true}}\n'), true)
      }
      if (path === `/v1/tasks/${watched}:watch`) return open(streams.task, response, 'application/json')
      if (path === `/v1/tasks/${watched}/logs`) return open(streams.logs, response, 'text/plain')
      if (path === `/v1/tasks/${watched}`) return say(one())
      if (path === '/v1/tasks') {
        const before = Date.parse(u.searchParams.get('created_before') ?? '') || Infinity
        const newest = Math.min(
          Number(u.searchParams.get('page_token') || (second + 1) * perSecond - 1),
          Math.ceil(((before - begin) * perSecond) / 1000) - 1,
        )
        const size = Math.min(Number(u.searchParams.get('page_size')) || 50, newest + 1)
        response.writeHead(200, { 'content-type': 'application/json' })
        const list = Array.from({ length: size }, (_, i) => text(newest - i)).join(',')
        response.end(`{"tasks":[${list}],"next_page_token":"${newest >= size ? newest - size : ''}"}`)
        return true
      }
      if (path === '/v1/node/history')
        return say({ step: '20s', points: points(Number((u.searchParams.get('span') ?? '3600s').slice(0, -1))) })
      return rest(request, response)
    },
  }
}
