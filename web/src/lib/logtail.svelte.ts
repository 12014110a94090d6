import { ApiError, call, segment, url } from './api'
import { keep } from './stream'
import { plain } from './sniff'

/** What is kept of a log, in characters: its end. */
const most = 512 << 10

/** The end of a task's log, which grows while the task runs. */
export class LogTail {
  text = $state('')
  /** The beginning was let go. */
  cut = $state(false)
  state: 'opening' | 'following' | 'ended' | 'broken' = $state('opening')
  error = $state('')
  #offset = 0
  #waiting: string[] = []
  #timer: ReturnType<typeof setTimeout> | undefined
  #decoder = new TextDecoder()

  constructor(task: string, signal: AbortSignal) {
    signal.addEventListener('abort', () => clearTimeout(this.#timer))
    keep(
      {
        once: async (round, alive) => {
          const response = await call(url(`/v1/tasks/${segment(task)}/logs`, { follow: true, offset: this.#offset || undefined }), {
            signal: round,
            timeout: 0,
          })
          alive()
          this.state = 'following'
          const reader = response.body?.getReader()
          for (;;) {
            const piece = await reader?.read().catch(() => {
              throw new ApiError(0, 'BROKEN', 'The connection to the node broke.')
            })
            if (!piece || piece.done) {
              this.#show()
              return true
            }
            this.#offset += piece.value.length
            this.#add(this.#decoder.decode(piece.value, { stream: true }))
          }
        },
        state: (error) => {
          this.state = error ? 'broken' : 'following'
          this.error = error?.message ?? ''
        },
      },
      signal,
    ).then(
      () => {
        if (this.state !== 'broken') this.state = 'ended'
      },
      () => {
        this.state = 'broken'
      },
    )
  }

  // To draw half a million characters again for each line is too much work: what comes within a fifth of a second is shown together.
  #add(text: string): void {
    this.#waiting.push(text)
    this.#timer ??= setTimeout(() => this.#show(), 200)
  }

  #show(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const all = this.text + plain(this.#waiting.join(''))
    this.#waiting = []
    if (all.length > most) {
      this.cut = true
      this.text = all.slice(all.indexOf('\n', all.length - most) + 1)
    } else this.text = all
  }
}
