import { ApiError, call } from './api'
import { backoff, breath, pause, visible } from './wait'

/** The longest line that is taken, in characters: a stream of a broken node must not fill this page's memory. */
export const LONGEST_LINE = 16 << 20

/** Cuts text that comes in pieces into lines. */
export class Lines {
  private rest = ''

  /** The lines that are complete with this piece. */
  push(piece: string): string[] {
    const lines = (this.rest + piece).split('\n')
    this.rest = lines.pop() ?? ''
    if (this.rest.length > LONGEST_LINE) throw new ApiError(200, 'LINE_TOO_LONG', 'The node sent a line that is too long.')
    return lines.filter((l) => l !== '')
  }
}

/** What one line says: a result, or why the stream ends. */
export function parseLine<T>(line: string): T {
  const m = JSON.parse(line) as { result?: T; error?: { code?: string; reason?: string; message?: string } }
  if (m.error) throw new ApiError(200, m.error.reason ?? '', m.error.message ?? 'The node ended the stream.')
  return m.result as T
}

/** The results of one stream, until the node ends it or it breaks. */
export async function* results<T>(path: string, signal: AbortSignal, init: { method?: string; body?: unknown } = {}): AsyncGenerator<T> {
  const response = await call(path, { ...init, signal, timeout: 0 })
  const lines = new Lines()
  let begun = performance.now()
  for await (const text of texts(response)) {
    for (const line of lines.push(text)) {
      yield parseLine<T>(line)
      // What comes without a pause, as thousands of shards do, must leave the page some time for people.
      if (performance.now() - begun < 20) continue
      await breath()
      begun = performance.now()
    }
  }
}

/** A body's text in pieces, with characters that lie across two pieces whole. */
export async function* texts(response: Response): AsyncGenerator<string> {
  if (!response.body) return
  const reader = response.body.getReader()
  const decoder = new TextDecoder()
  try {
    for (;;) {
      let piece: ReadableStreamReadResult<Uint8Array>
      try {
        piece = await reader.read()
      } catch {
        throw new ApiError(0, 'BROKEN', 'The connection to the node broke.')
      }
      if (piece.done) break
      yield decoder.decode(piece.value, { stream: true })
    }
    const end = decoder.decode()
    if (end !== '') yield end
  } finally {
    reader.cancel().catch(() => undefined)
  }
}

export interface Keep {
  /** Opens the stream and reads it to its end; true when there is nothing more to come. */
  once(signal: AbortSignal, alive: () => void): Promise<boolean>
  /** Before each try again, and with undefined when it goes on. */
  state?(error: ApiError | undefined): void
}

/**
 * Keeps a stream open until it is over or the signal says stop: after a break it tries again, each time after a longer pause of random length, so that pages do not come
 * back in step. While nobody looks at the page the stream is closed, because a browser has six connections to a node for all its pages together.
 */
export async function keep(stream: Keep, signal: AbortSignal): Promise<void> {
  let tries = 0
  while (!signal.aborted) {
    await visible(signal)
    if (signal.aborted) return
    const round = new AbortController()
    const hide = () => {
      if (document.hidden) round.abort()
    }
    document.addEventListener('visibilitychange', hide)
    try {
      const done = await stream.once(AbortSignal.any([signal, round.signal]), () => {
        if (tries > 0) stream.state?.(undefined)
        tries = 0
      })
      if (done) return
    } catch (error) {
      if (signal.aborted) return
      if (!round.signal.aborted) {
        if (!(error instanceof ApiError)) throw error
        stream.state?.(error)
        // What cannot get better by itself is not asked again.
        if (error.notOffered || error.status === 401 || error.status === 404 || error.status === 400 || error.status === 429) return
      }
    } finally {
      document.removeEventListener('visibilitychange', hide)
    }
    if (!document.hidden) await pause(backoff(tries++), signal)
  }
}
