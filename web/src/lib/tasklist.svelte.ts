import { ApiError, get, url } from './api'
import { terminal, time } from './format'
import { keep, results } from './stream'
import { byCreation, matches, merge, replace, rowOf, stateGroups, type Filter, type Row } from './tasks'
import type { Task } from './types'
import { backoff, pause, visible } from './wait'

interface Page {
  tasks: Task[]
  next_page_token: string
}

const firstSize = 100 // what a screen shows: it is there at once
const pageSize = 500
const mostPages = 8
/** More than this the list does not take: who looks for older tasks than these filters for them. */
export const mostTasks = 50_000
/** News alone make the list no longer than this: what they push out at the end is asked for again when somebody goes there. */
export const room = 2000

/** The tasks that a filter wants, newest first, kept as the node has them. */
export class TaskList {
  tasks: Row[] = $state.raw([])
  loading = $state(true)
  error: ApiError | undefined = $state.raw()
  /** There are older ones. */
  more = $state(false)
  /** Changes come by themselves: the node tells of them, else it is asked again and again. */
  live: 'stream' | 'asked' | 'broken' = $state('asked')
  #next = ''
  #before = ''
  #since: number
  #room = room
  #signal: AbortSignal
  #news: Row[] = []
  #timer: ReturnType<typeof setTimeout> | undefined
  #loadingMore = false

  constructor(
    readonly filter: Filter,
    signal: AbortSignal,
  ) {
    this.#signal = signal
    // A page token is good for the very filter that it was made for: one moment for all pages.
    this.#since = filter.within > 0 ? Date.now() - filter.within * 1000 : 0
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
            if (m.missed) await this.#again(pageSize)
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
      n = (await this.#again(200)) ? 0 : n + 1
    }
  }

  #query(token: string, size: number, before = ''): string {
    const f = this.filter
    return url('/v1/tasks', {
      states: stateGroups[f.state] ?? [],
      type: f.type,
      text: f.text,
      created_after: this.#since > 0 ? new Date(this.#since).toISOString() : '',
      created_before: before,
      page_size: size,
      page_token: token,
    })
  }

  /** Asks for the newest, and forgets all others. */
  async reload(): Promise<boolean> {
    try {
      const page = await get<Page>(this.#query('', firstSize), this.#signal)
      this.tasks = page.tasks.map(rowOf)
      this.#goOn(page.next_page_token)
      this.error = undefined
      this.loading = false
      return true
    } catch (error) {
      return this.#failed(error)
    }
  }

  /** Asks for the newest again, page by page down to what was the newest, and to the last that had not ended: what has ended does not change. */
  async #again(size: number): Promise<boolean> {
    const newest = this.tasks[0]
    const goal = this.tasks.findLast((t) => !terminal(t.state)) ?? newest
    let after: Row | undefined
    let token = ''
    try {
      for (let n = 0; n < mostPages; n++) {
        const page = await get<Page>(this.#query(token, size), this.#signal)
        const rows = page.tasks.map(rowOf)
        const [end, reached] = [rows.at(-1), this.tasks.at(-1)]
        token = page.next_page_token
        const beyond = token === '' || !end || !reached || byCreation(reached, end) <= 0
        if (beyond) this.#goOn(token)
        this.#show(replace(this.tasks, rows, after, token === ''))
        this.error = undefined
        if (beyond || !goal || byCreation(goal, end) <= 0) return true
        after = end
      }
      const end = after
      if (newest && end && byCreation(end, newest) < 0) {
        // More has come between than is asked for at one time: what is older than that begins anew.
        this.#goOn(token)
        this.#show(this.tasks.filter((t) => byCreation(t, end) <= 0))
      }
      return true
    } catch (error) {
      return this.#failed(error)
    }
  }

  // Older tasks than the list's come with this token.
  #goOn(token: string): void {
    this.#next = token
    this.#before = ''
    this.more = token !== '' && this.tasks.length < mostTasks
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
      const page = await get<Page>(this.#query(this.#next, pageSize, this.#before), this.#signal)
      const known = new Set(this.tasks.map((t) => t.id))
      this.tasks = [...this.tasks, ...page.tasks.filter((t) => !known.has(t.id)).map(rowOf)]
      this.#room = Math.max(this.#room, Math.min(mostTasks, this.tasks.length + room))
      this.#next = page.next_page_token
      this.more = page.next_page_token !== '' && this.tasks.length < mostTasks
    } catch (error) {
      this.#failed(error)
    } finally {
      this.#loadingMore = false
    }
  }

  #show(tasks: Row[]): void {
    const last = tasks[this.#room - 1]
    if (last && tasks.length > this.#room && !this.#loadingMore) {
      tasks = tasks.slice(0, this.#room)
      this.#next = ''
      this.#before = new Date((time(last.created_at) ?? 0) + 1).toISOString() // those of the same moment come again, and are known
      this.more = this.#room < mostTasks
    }
    if (this.#since > 0) {
      const from = Date.now() - this.filter.within * 1000
      let n = tasks.length
      while (n > 0 && (time(tasks[n - 1]?.created_at) ?? from) < from) n--
      if (n < tasks.length) tasks = tasks.slice(0, n)
    }
    this.tasks = tasks
  }

  // Many changes come at once: they are shown together.
  #take(task: Task): void {
    this.#news.push(rowOf(task))
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      const news = this.#news
      this.#news = []
      const now = Date.now()
      this.#show(merge(this.tasks, news, (t) => matches(t, this.filter, now)))
    }, 200)
  }
}
