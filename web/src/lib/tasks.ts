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
export function matches(t: Task, f: Filter, now: number): boolean {
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
export function newer(a: Task | undefined, b: Task): boolean {
  if (!a) return true
  const [ra, rb] = [BigInt(a.revision || 0), BigInt(b.revision || 0)]
  return rb > ra || (rb === ra && terminal(b.state) && !terminal(a.state))
}

/** The list with news in it, newest task first; what the filter does not want any more is gone. */
export function merge(list: Task[], news: Task[], wanted: (t: Task) => boolean): Task[] {
  const latest = new Map<string, Task>()
  for (const t of news) if (newer(latest.get(t.id), t)) latest.set(t.id, t)
  const result: Task[] = []
  for (const old of list) {
    const fresh = latest.get(old.id)
    latest.delete(old.id)
    const t = fresh && newer(old, fresh) ? fresh : old
    if (wanted(t)) result.push(t)
  }
  const added = [...latest.values()].filter(wanted)
  if (added.length === 0) return result
  return [...added, ...result].sort(byCreation)
}

function byCreation(a: Task, b: Task): number {
  const [x, y] = [a.created_at ?? '', b.created_at ?? '']
  // RFC 3339 with fractions of any length: the same second is told apart by text, others by time.
  const d = Date.parse(y) - Date.parse(x)
  if (d !== 0 && Number.isFinite(d)) return d
  return x < y ? 1 : x > y ? -1 : a.id < b.id ? 1 : -1
}

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
