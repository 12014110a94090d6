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
  #decoder = new TextDecoder()

  constructor(task: string, signal: AbortSignal) {
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
            if (!piece || piece.done) return true
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

  #add(text: string): void {
    const all = this.text + plain(text)
    if (all.length > most) {
      this.cut = true
      this.text = all.slice(all.indexOf('\n', all.length - most) + 1)
    } else this.text = all
  }
}
