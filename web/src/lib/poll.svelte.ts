import { ApiError } from './api'
import { backoff, pause, visible } from './wait'

/** A value that is asked for again and again while a component is there. Make it while the component is made. */
export class Poll<T> {
  value: T | undefined = $state.raw()
  error: ApiError | undefined = $state.raw()
  /** When the value came, in milliseconds since 1970. */
  at = $state(0)
  #wake: (() => void) | undefined
  readonly #ask: (signal: AbortSignal) => Promise<T>
  readonly #every: number

  /** ask is tracked: when something reactive that it reads before its first await changes, it is asked again at once. */
  constructor(ask: (signal: AbortSignal) => Promise<T>, every: number) {
    this.#ask = ask
    this.#every = every
    $effect(() => {
      const stop = new AbortController()
      void this.#run(stop.signal)
      return () => stop.abort()
    })
  }

  get notOffered(): boolean {
    return this.error?.notOffered ?? false
  }

  /** Asks now. */
  refresh(): void {
    this.#wake?.()
  }

  async #run(signal: AbortSignal): Promise<void> {
    let failed = 0
    let first: Promise<T> | undefined = this.#ask(signal)
    while (!signal.aborted) {
      try {
        const value = await (first ?? this.#ask(signal))
        if (signal.aborted) return
        this.value = value
        this.error = undefined
        this.at = Date.now()
        failed = 0
      } catch (error) {
        if (signal.aborted) return
        this.error =
          error instanceof ApiError ? error : new ApiError(200, 'UNREADABLE', 'The node gave an answer that this page cannot read.')
        if (this.error.notOffered) return
        failed++
      }
      first = undefined
      const round = new AbortController()
      this.#wake = () => round.abort()
      await pause(
        failed > 0 ? Math.max(backoff(failed), Math.min(this.#every, 2000)) : this.#every,
        AbortSignal.any([signal, round.signal]),
      )
      await visible(signal)
    }
  }
}
