import { ApiError, get, url } from './api'
import { keep, results } from './stream'
import { matches, merge, stateGroups, type Filter } from './tasks'
import type { Task } from './types'
import { backoff, pause, visible } from './wait'

interface Page {
  tasks: Task[]
  next_page_token: string
}

const pageSize = 500
/** More than this the list does not take: who looks for older tasks than these filters for them. */
export const mostTasks = 50_000

/** The tasks that a filter wants, newest first, kept as the node has them. */
export class TaskList {
  tasks: Task[] = $state.raw([])
  loading = $state(true)
  error: ApiError | undefined = $state.raw()
  /** There are older ones. */
  more = $state(false)
  /** Changes come by themselves: the node tells of them, else it is asked again and again. */
  live: 'stream' | 'asked' | 'broken' = $state('asked')
  #next = ''
  #signal: AbortSignal
  #news: Task[] = []
  #timer: ReturnType<typeof setTimeout> | undefined
  #loadingMore = false

  constructor(
    readonly filter: Filter,
    signal: AbortSignal,
  ) {
    this.#signal = signal
    signal.addEventListener('abort', () => clearTimeout(this.#timer))
    void this.#run()
  }

  async #run(): Promise<void> {
    for (let n = 0; !this.#signal.aborted && !(await this.reload()); n++) await pause(backoff(n), this.#signal)
    await keep(
      {
        once: async (signal, alive) => {
          const { type, text } = this.filter
          for await (const m of results<{ task?: Task; missed?: boolean }>(url('/v1/tasks:watch', { type, text }), signal)) {
            alive()
            this.live = 'stream'
            // Every stream begins with it, too: what was before is in the list.
            if (m.missed) await this.reload()
            else if (m.task) this.#take(m.task)
          }
          return false
        },
        state: (error) => {
          // A node may end a stream of its own accord after a while: that is no trouble to speak of.
          if (error && !error.notOffered && error.reason !== 'SHUTTING_DOWN') this.live = 'broken'
        },
      },
      this.#signal,
    )
    // The node has no such stream.
    this.live = 'asked'
    for (let n = 0; !this.#signal.aborted;) {
      await pause(n > 0 ? backoff(n) : 2000, this.#signal)
      await visible(this.#signal)
      if (this.#signal.aborted) return
      n = (await this.#refresh()) ? 0 : n + 1
    }
  }

  #query(token = '', size = pageSize): string {
    const f = this.filter
    return url('/v1/tasks', {
      states: stateGroups[f.state] ?? [],
      type: f.type,
      text: f.text,
      created_after: f.within > 0 ? new Date(Date.now() - f.within * 1000).toISOString() : '',
      page_size: size,
      page_token: token,
    })
  }

  /** Asks for the newest again, and forgets the older ones. */
  async reload(): Promise<boolean> {
    try {
      const page = await get<Page>(this.#query(), this.#signal)
      this.tasks = page.tasks
      this.#next = page.next_page_token
      this.more = page.next_page_token !== ''
      this.error = undefined
      this.loading = false
      return true
    } catch (error) {
      return this.#failed(error)
    }
  }

  async #refresh(): Promise<boolean> {
    try {
      const page = await get<Page>(this.#query('', 200), this.#signal)
      this.error = undefined
      // A task that has left the filter is in no answer: those of the answer's span that it does not have are gone.
      const last = page.tasks.at(-1)
      const fresh = new Set(page.tasks.map((t) => t.id))
      const whole = page.next_page_token === ''
      const kept = this.tasks.filter(
        (t) => fresh.has(t.id) || (!whole && last !== undefined && (t.created_at ?? '') < (last.created_at ?? '')),
      )
      this.tasks = merge(kept, page.tasks, () => true)
      return true
    } catch (error) {
      return this.#failed(error)
    }
  }

  #failed(error: unknown): false {
    if (!this.#signal.aborted) {
      this.error =
        error instanceof ApiError ? error : new ApiError(200, 'UNREADABLE', 'The node gave an answer that this page cannot read.')
      this.loading = false
    }
    return false
  }

  async loadMore(): Promise<void> {
    if (this.#loadingMore || !this.more) return
    this.#loadingMore = true
    try {
      const page = await get<Page>(this.#query(this.#next), this.#signal)
      const known = new Set(this.tasks.map((t) => t.id))
      this.tasks = [...this.tasks, ...page.tasks.filter((t) => !known.has(t.id))]
      this.#next = page.next_page_token
      this.more = page.next_page_token !== '' && this.tasks.length < mostTasks
    } catch (error) {
      this.#failed(error)
    } finally {
      this.#loadingMore = false
    }
  }

  // Many changes come at once: they are shown together.
  #take(task: Task): void {
    this.#news.push(task)
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      const news = this.#news
      this.#news = []
      const now = Date.now()
      this.tasks = merge(this.tasks, news, (t) => matches(t, this.filter, now))
    }, 200)
  }
}
