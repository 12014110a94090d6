import { ApiError, get, segment } from './api'
import { terminal } from './format'
import { keep, results } from './stream'
import type { Task } from './types'
import { backoff, pause, visible } from './wait'

/** One task with all that is known of it, kept as the node has it until it ends. */
export class TaskView {
  task: Task | undefined = $state.raw()
  error: ApiError | undefined = $state.raw()
  #asking: Promise<boolean> | undefined
  #again = false

  constructor(
    readonly id: string,
    readonly signal: AbortSignal,
  ) {
    void this.#run()
    // The stream says when something has changed; history and progress come from the task itself.
    keep(
      {
        once: async (round, alive) => {
          for await (const m of results<{ task: Task }>(`/v1/tasks/${segment(id)}:watch`, round)) {
            alive()
            if (m.task.revision !== this.task?.revision || terminal(m.task.state)) void this.refresh()
          }
          await this.refresh()
          return this.task !== undefined && terminal(this.task.state)
        },
      },
      signal,
    ).catch(() => undefined)
  }

  async #run(): Promise<void> {
    for (let n = 0; !this.signal.aborted && !(this.task && terminal(this.task.state));) {
      n = (await this.refresh()) ? 0 : n + 1
      if (this.error?.status === 404 || this.error?.status === 400) return
      await pause(n > 0 ? backoff(n) : 1500, this.signal)
      await visible(this.signal)
    }
  }

  /** Asks now; asked while an answer is on its way, it asks once more after that. */
  async refresh(): Promise<boolean> {
    if (this.#asking) {
      this.#again = true
      return this.#asking
    }
    this.#asking = this.#ask()
    const good = await this.#asking
    this.#asking = undefined
    if (this.#again && !this.signal.aborted) {
      this.#again = false
      return this.refresh()
    }
    return good
  }

  async #ask(): Promise<boolean> {
    try {
      this.task = await get<Task>(`/v1/tasks/${segment(this.id)}`, this.signal)
      this.error = undefined
      return true
    } catch (error) {
      if (!this.signal.aborted && error instanceof ApiError) this.error = error
      return false
    }
  }
}
