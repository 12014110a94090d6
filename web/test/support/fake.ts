// A REST server that makes its answers up, for what takes more than a real node on this machine has, and for strings that a real one would not take.
import type { ServerResponse } from 'node:http'
import { json, type Handler } from './site'

export const hostile = (what: string) => `<img src=x onerror="alert('${what}')"><script>alert(1)</script>`

export interface Size {
  tasks: number
  peers: number
  shards: number
  anonymous: boolean
  /** It has none of the calls that came with the dashboard. */
  old?: boolean
}

const begin = Date.now()
const iso = (ms: number) => new Date(ms).toISOString()
const hex = (n: number) => n.toString(16).padStart(8, '0')
const id = (n: number) => `${hex(n)}000000000000000000000000`.slice(0, 32)

export function fake(size: Size): Handler {
  const tokens = ['main']
  const who = (n: number) => (size.anonymous ? { peer_id: '', alias: `p-${hex(n)}` } : { peer_id: `peer-${n}`, alias: '' })
  const task = (n: number, state?: string) => {
    const s = state ?? (n % 97 === 3 ? 'FAILED' : n % 50 === 7 ? 'RUNNING' : 'COMPLETED')
    const w = who(n % Math.max(1, size.peers))
    const made = begin - n * 1500
    return {
      id: id(n),
      type: n % 3 === 0 ? 'wasm' : 'sum',
      state: s,
      provider: w.peer_id,
      provider_alias: w.alias,
      consumer: '',
      consumer_alias: '',
      attempts: 1,
      exit_code: s === 'COMPLETED' ? 0 : null,
      error: s === 'FAILED' ? { reason: 'TIME_LIMIT', message: 'the program ran longer than its limit of 1s' } : null,
      created_at: iso(made),
      started_at: null,
      finished_at: s === 'RUNNING' ? null : iso(made + 20 + (n % 40) * 25),
      limits: { time: '600s', memory: '536870912', output: '67108864' },
      usage: null,
      result: null,
      history: [] as unknown[],
      labels: n === 0 ? { note: hostile('label') } : n % 4 === 0 ? { batch: String(n % 9) } : {},
      queue_position: 0,
      revision: '5',
      progress: null,
      replicas: 0,
      replica_peers: [],
    }
  }
  const metric = (n: number) => ({
    metric: {
      peer_id: who(n).peer_id,
      version: '1',
      cpu: { model: size.anonymous ? '' : 'EPYC', cores: 2, threads: [2, 4, 16, 64][n % 4], mhz: 0, load: (n % 10) / 10, load1: 1 },
      memory: { total: '34359738368', free: '17179869184', used: '17179869184' },
      disk: { total: '1099511627776', free: '549755813888', used: '549755813888' },
      gpus: [],
      queue: { pending: n % 3, running: n % 5, slots: 4, capacity: 100 },
    },
    received_at: iso(begin),
    age: '2.5s',
    own: false,
    alias: who(n).alias,
  })
  const peer = (n: number) => ({
    ...who(n),
    role: 'provider',
    state: n % 17 === 0 ? 'unavailable' : n % 41 === 0 ? 'leaving' : 'available',
    capabilities: [
      { type: 'sum', version: '1', max_limits: null, attributes: {} },
      {
        type: 'wasm',
        version: '1',
        max_limits: { time: '86400s', memory: '2147483648', output: '1073741824' },
        attributes: { engine: hostile('attribute') },
      },
    ],
    sealing_key: '',
    addresses: [],
    first_seen: iso(begin - 1e7),
    last_seen: iso(begin),
    rtt: n % 13 === 0 ? null : `${(0.001 * 1.0075 ** ((n * 37) % 900)).toFixed(6)}s`,
    connected: n % 3 === 0,
  })
  const job = () => ({
    id: 'job',
    name: hostile('job'),
    state: 'RUNNING',
    total: size.shards,
    parallel: 64,
    hedge: false,
    counts: {
      added: size.shards,
      waiting: Math.floor(size.shards / 4) - 8,
      running: 8,
      completed: Math.ceil((size.shards * 3) / 4) - 40,
      failed: 40,
      cancelled: 0,
      extra: 2,
    },
    created_at: iso(begin - 60_000),
    started_at: iso(begin - 60_000),
    finished_at: null,
    detail: '',
  })
  const shard = (n: number, state: string) => ({
    index: n,
    name: `part-${n}.csv`,
    size: '100',
    state,
    task_id: id(n),
    tries: 1,
    attempts: 1,
    exit_code: 0,
    error: state === 'FAILED' ? { reason: n % 2 ? 'TIME_LIMIT' : 'TRAP', message: hostile('shard') } : null,
    took: '1.250s',
    ended: String(n + 1),
    stdout_size: '3',
  })
  const points = (span: number) =>
    Array.from({ length: 180 }, (_, i) => {
      const w = Math.sin(i / 14)
      return {
        time: iso(begin - (180 - i) * (span / 180) * 1000),
        waiting: Math.max(0, Math.round(6 + 6 * w)),
        running: Math.round(3 + 2 * Math.cos(i / 9)),
        finished: Math.round(30 + 12 * w),
        failed: i % 40 === 0 ? 2 : 0,
        latency_p50: `${(0.05 + 0.02 * w).toFixed(4)}s`,
        latency_p99: `${(0.4 + 0.2 * Math.abs(w)).toFixed(4)}s`,
        cpu: 0.4 + 0.3 * w,
        memory: '17179869184',
        memory_used: String(Math.round(17e9 + 2e9 * w)),
        memory_total: '34359738368',
        disk_used: '549755813888',
        disk_free: '549755813888',
      }
    })

  return (request, response) => {
    const u = new URL(request.url ?? '/', 'http://x')
    const method = request.method ?? 'GET'
    const q = u.searchParams
    const say = (body: unknown) => (json(response, 200, body), true)
    const at = Number(q.get('page_token') ?? 0) || 0
    const n = Math.min(1000, Number(q.get('page_size')) || 50)
    const page = <T>(of: number, make: (i: number) => T) => ({
      list: Array.from({ length: Math.max(0, Math.min(n, of - at)) }, (_, i) => make(at + i)),
      next_page_token: at + n < of ? String(at + n) : '',
    })
    const key = `${method} ${u.pathname}`
    if (key === 'GET /v1/session') return say({ expires_at: iso(begin + 4e7), nodes: [{ name: 'demo', url: '', current: true }] })
    if (key === 'GET /metrics') return (response.end('shallot_repository_disk_bytes 5e9\nshallot_repository_quota_bytes 3.2e10\n'), true)
    if (key === 'GET /v1/node')
      return say({
        ...(size.anonymous ? { peer_id: '', alias: 'p-ffffffff' } : { peer_id: 'peer-self', alias: '' }),
        role: 'consumer',
        mode: size.anonymous ? 'anonymous' : 'open',
        addresses: [],
        capabilities: [],
        processes: ['broker', 'task', 'node'].map((name, i) => ({
          name,
          pid: String(100 + i),
          state: 'serving',
          detail: i === 1 ? hostile('process') : '',
          started_at: iso(begin - 5e6),
          memory: '31457280',
          cpu: '12.5s',
        })),
        providers_known: size.peers,
        connections: 12,
        online: true,
        ready: true,
        version: 'v1.2.3',
        started_at: iso(begin - 5e6),
        fence: size.anonymous ? 'enclosed' : '',
        tor: size.anonymous ? { state: 'online', progress: 100, detail: '' } : null,
      })
    if (key === 'GET /v1/tasks') {
      const p = page(size.tasks, task)
      return say({ tasks: p.list, next_page_token: p.next_page_token })
    }
    if (key === 'GET /v1/peers') {
      const p = page(size.peers, peer)
      return say({ peers: p.list, next_page_token: p.next_page_token })
    }
    if (key === 'GET /v1/metrics') {
      const p = page(size.peers, metric)
      return say({ metrics: p.list, next_page_token: p.next_page_token })
    }
    if (key === 'GET /v1/jobs') return say({ jobs: [job()], next_page_token: '' })
    if (key === 'GET /v1/jobs/job:watch') {
      const c = job().counts
      return lines(response, [
        { job: job() },
        ...Array.from({ length: c.completed + c.failed }, (_, i) => ({
          shard: { shard: shard(i, i % Math.max(2, Math.floor(size.shards / 54)) === 1 ? 'FAILED' : 'COMPLETED') },
        })),
      ])
    }
    if (key === 'GET /v1/jobs/job/shards')
      return say({ shards: Array.from({ length: 8 }, (_, i) => shard(size.shards - 1 - i, 'RUNNING')), next_page_token: '' })
    if (key === 'GET /v1/pins')
      return say({
        pins: Array.from({ length: 12 }, (_, i) => ({
          cid: `bafkrei${'abcdefgh234567'.repeat(4)}${i}`,
          owner: i === 0 ? 'user' : i === 1 ? hostile('owner') : `task:${id(i)}`,
          expires_at: i % 2 ? iso(begin + 9e7) : null,
          size: '1048576',
        })),
        next_page_token: '',
      })
    const one = /^GET \/v1\/tasks\/([0-9a-f]+)$/.exec(key)
    if (one)
      return say({
        ...task(0, 'FAILED'),
        id: one[1],
        history: [
          { at: iso(begin - 9000), attempt: 0, state: 'PENDING', what: 'CREATED', ...who(0), peer_id: '', alias: '', detail: '' },
          { at: iso(begin - 8990), attempt: 1, state: 'SUBMITTED', what: 'SUBMITTED', ...who(1), detail: hostile('why') },
          { at: iso(begin - 8900), attempt: 1, state: 'RUNNING', what: 'STARTED', ...who(1), detail: '' },
          { at: iso(begin - 4000), attempt: 1, state: 'PENDING', what: 'LEASE_LOST', ...who(1), detail: 'nothing was heard of it for 15s' },
          { at: iso(begin - 3990), attempt: 2, state: 'SUBMITTED', what: 'SUBMITTED', ...who(2), detail: '' },
          { at: iso(begin - 1000), attempt: 2, state: 'FAILED', what: 'FAILED', ...who(2), detail: 'TIME_LIMIT' },
        ],
      })
    const its = /^GET \/v1\/peers\/(?:peer-|p-)([0-9a-f]+)(\/metrics)?$/.exec(key)
    if (its) return say(its[2] ? metric(1) : peer(1))
    if (size.old) return false

    if (key === 'GET /v1/tasks:watch') {
      response.writeHead(200, { 'content-type': 'application/json' })
      response.write('{"result":{"missed":true}}\n')
      let revision = 10
      const timer = setInterval(
        () =>
          response.write(
            JSON.stringify({ result: { task: { ...task(1, revision % 2 ? 'RUNNING' : 'COMPLETED'), revision: String(revision++) } } }) +
              '\n',
          ),
        500,
      )
      response.on('close', () => clearInterval(timer))
      return true
    }
    if (key === 'GET /v1/node:diagnose')
      return say({
        findings: [
          { check: 'clock', verdict: 'warning', detail: 'clocks differ by 40 s', mend: 'set the clock' },
          { check: 'disk', verdict: 'problem', detail: hostile('detail'), mend: 'free some' },
          { check: 'tor', verdict: 'ok', detail: '', mend: '' },
        ],
      })
    if (key === 'GET /v1/node/history') return say({ step: '10s', points: points(Number((q.get('span') ?? '3600s').slice(0, -1))) })
    if (/^GET \/v1\/peers\/[^/]+\/metrics\/history$/.test(key)) return say({ points: points(3600) })
    if (/^GET \/v1\/tasks\/[0-9a-f]+\/placement$/.test(key))
      return say({
        attempts: [
          {
            attempt: 1,
            ...who(1),
            at: iso(begin),
            chosen_because: 'LESS_BUSY',
            considered: [
              { ...who(1), score: 0.5, verdict: 'CHOSEN', reason: '0.5 tasks per slot' },
              { ...who(2), score: 1.25, verdict: 'BUSIER', reason: hostile('reason') },
            ],
            known: 3,
            qualified: 2,
            provider: '',
            provider_alias: '',
            ended: 'LEASE_LOST',
          },
        ],
      })
    if (key === 'GET /v1/settings')
      return say({
        version: 'v1.2.3',
        processes: [
          {
            name: 'task',
            settings: [
              { name: 'log.level', value: 'info', origin: 'default', place: '', secret: false },
              { name: 'store.url', value: '', origin: 'environment', place: 'SHALLOT_STORE_URL', secret: true },
              { name: 'note', value: hostile('value'), origin: 'file', place: '/etc/shallot/task.yaml:3', secret: false },
            ],
          },
        ],
      })
    if (key === 'POST /v1/invites') return say({ invite: 'shallot-invite:abc' })
    if (key === 'GET /v1/tokens') return say({ tokens: tokens.map((name) => ({ name, created_at: iso(begin) })) })
    if (key === 'POST /v1/tokens') return (tokens.push('backup'), say({ token: 'secret-of-backup' }))
    if (key === 'POST /v1/tokens/backup:revoke') return (tokens.splice(1), say({}))
    if (key === 'GET /v1/clients') return say({ clients: [{ name: 'laptop', expires_at: iso(begin + 9e9), revoked: false }], reason: '' })
    return false
  }
}

function lines(response: ServerResponse, results: unknown[]): true {
  response.writeHead(200, { 'content-type': 'application/json' })
  response.write(results.map((result) => JSON.stringify({ result })).join('\n') + '\n')
  return true // it stays open, as that of a job that runs
}
