import type { Problem } from './types'

/** Why a call did not succeed, in words that can be shown. */
export class ApiError extends Error {
  constructor(
    /** HTTP status; 0 when no answer came. */
    readonly status: number,
    readonly reason: string,
    message: string,
  ) {
    super(message)
  }

  /** No answer came, or one that says the node behind the gateway is away: asking again later may help. */
  get away(): boolean {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504
  }

  /** The node or its gateway is older than this page and has no such call. */
  get notOffered(): boolean {
    return this.status === 501 || this.status === 405 || (this.status === 404 && this.reason === 'PATH_NOT_FOUND')
  }
}

/** What the rest of the page wants to know of every call. */
export interface Listener {
  answered(): void
  away(error: ApiError): void
  signedOut(error: ApiError): void
}

let listener: Listener | undefined

export function listen(l: Listener): void {
  listener = l
}

export interface CallOptions {
  method?: string
  body?: unknown
  headers?: Record<string, string>
  signal?: AbortSignal | undefined
  /** A 401 is an answer here, not the end of the session. */
  quiet?: boolean
  /** Milliseconds until the call is given up; 0 for a stream. */
  timeout?: number
}

/** Calls REST and returns the answer once its headers are there. Throws an ApiError for every status but 2xx, and when no answer comes. */
export async function call(path: string, options: CallOptions = {}): Promise<Response> {
  const { method = 'GET', body, timeout = 20_000 } = options
  const headers: Record<string, string> = { accept: 'application/json', ...options.headers }
  if (body !== undefined) headers['content-type'] = 'application/json'
  const signals = [options.signal, timeout > 0 ? AbortSignal.timeout(timeout) : undefined].filter((s) => s !== undefined)
  let response: Response
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
      signal: signals.length > 0 ? AbortSignal.any(signals) : null,
    })
  } catch (cause) {
    if (options.signal?.aborted) throw cause
    const error = new ApiError(0, 'AWAY', 'The node does not answer. It may be starting, stopped or cut off.')
    listener?.away(error)
    throw error
  }
  if (response.ok) {
    listener?.answered()
    return response
  }
  const error = await problem(response)
  if (error.status === 401 && !options.quiet) listener?.signedOut(error)
  else if (error.away) listener?.away(error)
  else listener?.answered()
  throw error
}

async function problem(response: Response): Promise<ApiError> {
  let p: Problem = {}
  try {
    p = (await response.json()) as Problem
  } catch {
    // Something in front of the gateway has answered: the status has to do.
  }
  const text = typeof p.message === 'string' && p.message !== '' ? p.message : `The node answered with status ${response.status}.`
  return new ApiError(response.status, typeof p.reason === 'string' ? p.reason : '', text)
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await call(path, { signal })).json()) as T
}

export async function post<T>(path: string, body: unknown = {}, options: CallOptions = {}): Promise<T> {
  const response = await call(path, { method: 'POST', body, ...options })
  const text = await response.text()
  return (text === '' ? {} : JSON.parse(text)) as T
}

/** A path with values in it, each escaped; undefined and empty parameters are left out. */
export function url(path: string, query: Record<string, string | number | boolean | string[] | undefined> = {}): string {
  const q = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (Array.isArray(value)) for (const v of value) q.append(name, v)
    else if (value !== undefined && value !== '' && value !== false) q.set(name, String(value))
  }
  const s = q.toString()
  return s === '' ? path : `${path}?${s}`
}

export const segment = encodeURIComponent

/** Sends bytes and says how far it is: fetch tells nothing of that. */
export function upload<T>(path: string, bytes: Blob, progress: (sent: number) => void, signal?: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const x = new XMLHttpRequest()
    x.open('POST', path)
    x.setRequestHeader('content-type', 'application/octet-stream')
    x.upload.onprogress = (e) => progress(e.loaded)
    x.onerror = () => {
      const error = new ApiError(0, 'AWAY', 'The connection broke while the file was sent.')
      listener?.away(error)
      reject(error)
    }
    x.onabort = () => reject(new DOMException('stopped', 'AbortError'))
    x.onload = () => {
      let answer: Problem = {}
      try {
        answer = JSON.parse(x.responseText) as Problem
      } catch {
        // As in problem().
      }
      if (x.status >= 200 && x.status < 300) return resolve(answer as T)
      const error = new ApiError(x.status, answer.reason ?? '', answer.message ?? `The node answered with status ${x.status}.`)
      if (x.status === 401) listener?.signedOut(error)
      reject(error)
    }
    signal?.addEventListener('abort', () => x.abort(), { once: true })
    x.send(bytes)
  })
}

/** An error's words for people. */
export function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
