import { seconds, terminal, time } from './format'
import type { HistoryPoint, Task } from './types'

export interface Filter {
  state: string
  type: string
  text: string
  /** Only tasks of the last so many seconds; 0 for all. */
  within: number
}

/** What a choice of the filter stands for. */
export const stateGroups: Record<string, string[]> = {
  waiting: ['PENDING', 'SUBMITTED', 'ACCEPTED'],
  running: ['RUNNING'],
  completed: ['COMPLETED'],
  failed: ['FAILED', 'EXPIRED'],
  cancelled: ['CANCELLED'],
}

/** Whether a task that has changed belongs into the list. Text is left to the node, which looks through more than a task shows; for news it is looked for in what is here. */
export function matches(t: Row, f: Filter, now: number): boolean {
  const states = stateGroups[f.state]
  if (states && !states.includes(t.state)) return false
  if (f.type !== '' && t.type !== f.type) return false
  if (f.within > 0 && now - (time(t.created_at) ?? 0) > f.within * 1000) return false
  if (f.text !== '') {
    const text = f.text.toLowerCase()
    const hay = [t.id, t.type, t.error?.reason, t.error?.message, ...Object.entries(t.labels ?? {}).flat()].join(' ').toLowerCase()
    if (!hay.includes(text)) return false
  }
  return true
}

/** Newer says whether b is later news of a task than a. */
export function newer(a: Pick<Task, 'revision' | 'state'> | undefined, b: Pick<Task, 'revision' | 'state'>): boolean {
  if (!a) return true
  const [ra, rb] = [BigInt(a.revision || 0), BigInt(b.revision || 0)]
  return rb > ra || (rb === ra && terminal(b.state) && !terminal(a.state))
}

/** What a list keeps of a task: thousands of them are there at once. */
export type Row = Pick<
  Task,
  | 'id'
  | 'type'
  | 'state'
  | 'provider'
  | 'provider_alias'
  | 'consumer'
  | 'consumer_alias'
  | 'error'
  | 'labels'
  | 'created_at'
  | 'finished_at'
  | 'revision'
>

export function rowOf(t: Task): Row {
  const { id, type, state, provider, provider_alias, consumer, consumer_alias, error, labels, created_at, finished_at, revision } = t
  return { id, type, state, provider, provider_alias, consumer, consumer_alias, error, labels, created_at, finished_at, revision }
}

/** The list with news in it, newest task first. What the filter does not want of the news is gone; what is old in the list was wanted when it came. */
export function merge(list: Row[], news: Row[], wanted: (t: Row) => boolean): Row[] {
  const latest = new Map<string, Row>()
  for (const t of news) if (newer(latest.get(t.id), t)) latest.set(t.id, t)
  const result: Row[] = []
  for (const old of list) {
    const fresh = latest.get(old.id)
    if (!fresh) result.push(old)
    else {
      latest.delete(old.id)
      const t = newer(old, fresh) ? fresh : old
      if (wanted(t)) result.push(t)
    }
  }
  return weave([...latest.values()].filter(wanted).sort(byCreation), result)
}

/** The list with a page of the node's in it, which has all that is left between two places of the list: from the newest, or what is older than after, to the page's last or, where it is the last page, to the end. */
export function replace(list: Row[], page: Row[], after: Row | undefined, last: boolean): Row[] {
  const there = new Set(page.map((t) => t.id))
  const end = page.at(-1)
  const gone = (t: Row) =>
    !there.has(t.id) && (!after || byCreation(after, t) < 0) && (last || (end !== undefined && byCreation(t, end) <= 0))
  return merge(
    list.filter((t) => !gone(t)),
    page,
    () => true,
  )
}

// Both are in order: sorting thousands for each one that is new takes too long.
function weave(added: Row[], list: Row[]): Row[] {
  if (added.length === 0) return list
  const result: Row[] = []
  let i = 0
  for (const t of list) {
    for (let a = added[i]; a && byCreation(a, t) < 0; a = added[++i]) result.push(a)
    result.push(t)
  }
  for (; i < added.length; i++) result.push(added[i] as Row)
  return result
}

/** Less than zero where a comes before b in a list: it is newer. */
export function byCreation(a: Row, b: Row): number {
  const [x, y] = [a.created_at ?? '', b.created_at ?? '']
  if (x === y) return a.id < b.id ? 1 : a.id > b.id ? -1 : 0
  // RFC 3339 with fractions of any length: up to the second they are compared as text, which is quick, the rest by time and then as text.
  const [s, t] = [x.slice(0, 19), y.slice(0, 19)]
  if (s !== t) return s < t ? 1 : -1
  const d = Date.parse(y) - Date.parse(x)
  return d !== 0 && Number.isFinite(d) ? d : fraction(x) < fraction(y) ? 1 : -1
}

const fraction = (t: string) => t.slice(19).replace('Z', '')

export interface Summary {
  waiting: number
  running: number
  perMinute: number
  p50: number | undefined
  p99: number | undefined
  failed: number
}

/** What the newest tasks say of the last minutes, where the node keeps no history. */
export function summarize(tasks: Task[], now: number, minutes = 5): Summary {
  const since = now - minutes * 60_000
  const done = tasks.filter((t) => terminal(t.state) && (time(t.finished_at) ?? 0) >= since)
  const latencies = done
    .filter((t) => t.state === 'COMPLETED')
    .map((t) => ((time(t.finished_at) ?? 0) - (time(t.created_at) ?? 0)) / 1000)
    .sort((a, b) => a - b)
  return {
    waiting: tasks.filter((t) => stateGroups['waiting']?.includes(t.state)).length,
    running: tasks.filter((t) => t.state === 'RUNNING').length,
    perMinute: done.length / minutes,
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
    failed: done.filter((t) => t.state === 'FAILED' || t.state === 'EXPIRED').length,
  }
}

/** The value that a share q of the sorted values does not exceed. */
export function quantile(sorted: number[], q: number): number | undefined {
  return sorted.length === 0 ? undefined : sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))]
}

/** A column of a history, null where a point has none; durations as seconds. */
export function column(points: HistoryPoint[], name: keyof HistoryPoint): (number | null)[] {
  return points.map((p) => {
    const v = p[name]
    return seconds(v) ?? null
  })
}

export function times(points: HistoryPoint[]): number[] {
  return points.map((p) => (time(p.time) ?? 0) / 1000)
}

/** What happened to a task, an entry of the list for each attempt; attempt 0 is what was before the first. */
export function byAttempt<T extends { attempt: number }>(history: T[]): { attempt: number; entries: T[] }[] {
  const groups: { attempt: number; entries: T[] }[] = []
  for (const e of history) {
    const last = groups.at(-1)
    if (last && last.attempt === e.attempt) last.entries.push(e)
    else groups.push({ attempt: e.attempt, entries: [e] })
  }
  return groups
}
