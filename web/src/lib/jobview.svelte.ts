import { ApiError, get, segment, url } from './api'
import { keep, results } from './stream'
import type { Job, Shard } from './types'
import { backoff, pause, visible } from './wait'

export const shardStates = ['WAITING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED'] as const

/** What is kept of a shard that was heard of. */
export interface Known {
  index: number
  name: string
  task: string
  state: string
  reason: string
  message: string
  took: string | null
  tries: number
}

const over = (state: string) => ['COMPLETED', 'FAILED', 'CANCELLED'].includes(state)

/** One job and its shards: those that have ended come from its stream, those that run are asked for. */
export class JobView {
  job: Job | undefined = $state.raw()
  error: ApiError | undefined = $state.raw()
  /** By index; what is missing waits. */
  shards: Map<number, Known> = new Map()
  /** Counts up when shards has changed. */
  changes = $state(0)
  /** Ends a second, over the last half minute; undefined until that is known. */
  rate: number | undefined = $state()
  #samples: { at: number; done: number }[] = []
  #after = '0'
  #running = new Set<number>()
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(
    readonly id: string,
    readonly signal: AbortSignal,
  ) {
    keep(
      {
        once: async (round, alive) => {
          for await (const m of results<{ job?: Job; shard?: { shard: Shard } }>(
            url(`/v1/jobs/${segment(id)}:watch`, { after: this.#after === '0' ? undefined : this.#after }),
            round,
          )) {
            alive()
            this.error = undefined
            if (m.job) this.take(m.job)
            if (m.shard) this.#ended(m.shard.shard)
          }
          return this.job !== undefined && over(this.job.state)
        },
        state: (error) => {
          this.error = error
        },
      },
      signal,
    ).catch(() => undefined)
    signal.addEventListener('abort', () => clearTimeout(this.#timer))
    void this.#ask()
  }

  take(job: Job): void {
    this.job = job
    const c = job.counts
    if (!c) return
    const now = Date.now()
    this.#samples.push({ at: now, done: c.completed + c.failed + c.cancelled })
    while (this.#samples.length > 2 && (this.#samples[1]?.at ?? now) < now - 30_000) this.#samples.shift()
    this.rate = rateOf(this.#samples)
  }

  #ended(s: Shard): void {
    this.#after = s.ended
    this.#put(s)
    this.#running.delete(s.index)
  }

  #put(s: Shard): void {
    this.shards.set(s.index, {
      index: s.index,
      name: s.name,
      task: s.task_id,
      state: s.state,
      reason: s.error?.reason ?? '',
      message: s.error?.message ?? '',
      took: s.took,
      tries: s.tries,
    })
    this.#changed()
  }

  // Thousands come at once: they are shown together.
  #changed(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.changes++
    }, 200)
  }

  // Which shards run is in no stream.
  async #ask(): Promise<void> {
    for (let n = 0; !this.signal.aborted && !(this.job && over(this.job.state));) {
      try {
        const page = await get<{ shards: Shard[] }>(
          url(`/v1/jobs/${segment(this.id)}/shards`, { states: ['RUNNING'], page_size: 1000 }),
          this.signal,
        )
        const running = new Set(page.shards.map((s) => s.index))
        for (const i of this.#running) if (!running.has(i) && this.shards.get(i)?.state === 'RUNNING') this.shards.delete(i)
        for (const s of page.shards) if (!over(this.shards.get(s.index)?.state ?? '')) this.#put(s)
        this.#running = running
        this.#changed()
        n = 0
      } catch {
        n++
      }
      await pause(n > 0 ? backoff(n) : 2000, this.signal)
      await visible(this.signal)
    }
  }
}

/** Ends a second between the first and the last sample; undefined when they are too close to tell. */
export function rateOf(samples: { at: number; done: number }[]): number | undefined {
  const [a, b] = [samples[0], samples.at(-1)]
  if (!a || !b || b.at - a.at < 1000) return undefined
  return (b.done - a.done) / ((b.at - a.at) / 1000)
}
