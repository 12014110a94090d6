import { ApiError, call, get, listen, post, words } from './api'
import type { Session } from './types'
import { backoff, pause } from './wait'

type Phase = 'opening' | 'signed-out' | 'open'

/** Whether this page may ask the node, and whether the node answers. */
class Link {
  phase: Phase = $state('opening')
  session: Session | undefined = $state.raw()
  /** Why the page is signed out, in words; empty when it never was signed in. */
  reason = $state('')
  /** Since when the node does not answer, in milliseconds since 1970; 0 when it does. */
  awaySince = $state(0)
  awayReason = $state('')
  #probing = false

  async open(): Promise<void> {
    listen({
      answered: () => {
        this.awaySince = 0
      },
      away: (error) => this.#away(error),
      signedOut: (error) => {
        if (this.phase === 'open') this.reason = error.message
        this.phase = 'signed-out'
      },
    })
    await this.#resume(takeCode())
  }

  /** Signs in with the node's token, which is sent once and kept nowhere. */
  async signIn(token: string): Promise<void> {
    const { code } = await post<{ code: string }>('/v1/session:code', {}, { headers: { authorization: `Bearer ${token}` }, quiet: true })
    await this.#exchange(code)
  }

  async signOut(): Promise<void> {
    await call('/v1/session', { method: 'DELETE' })
    this.reason = ''
    this.phase = 'signed-out'
  }

  async #exchange(code: string): Promise<void> {
    await post('/v1/session', { code }, { quiet: true })
    this.session = await get<Session>('/v1/session')
    this.reason = ''
    this.phase = 'open'
  }

  // A session that is there is used: a code that comes a second time, as from the browser's history, would end it.
  async #resume(code: string | undefined): Promise<void> {
    for (let n = 0; this.phase === 'opening'; n++) {
      try {
        this.session = (await (await call('/v1/session', { quiet: true })).json()) as Session
        this.reason = ''
        this.phase = 'open'
      } catch (error) {
        if (error instanceof ApiError && error.away) {
          await pause(backoff(n), new AbortController().signal)
          continue
        }
        try {
          if (code !== undefined) return await this.#exchange(code)
        } catch (refused) {
          this.reason = words(refused)
        }
        this.phase = 'signed-out'
      }
    }
  }

  #away(error: ApiError): void {
    this.awayReason = error.message
    if (this.awaySince === 0) this.awaySince = Date.now()
    if (!this.#probing) void this.#probe()
  }

  // Screens that ask nothing would never learn that the node is back.
  async #probe(): Promise<void> {
    this.#probing = true
    const forever = new AbortController().signal
    for (let n = 0; this.awaySince !== 0; n++) {
      await pause(Math.min(backoff(n), 4000), forever)
      if (this.awaySince !== 0) await call('/v1/node', { timeout: 5000 }).catch(() => undefined)
    }
    this.#probing = false
  }
}

/** The one-time code that `shallot dashboard` puts in the fragment; it is gone from the address before anything else happens. */
export function takeCode(): string | undefined {
  const m = /^#\/?(?:login\?)?code=([A-Za-z0-9._~=-]+)$/.exec(location.hash)
  if (!m) return undefined
  history.replaceState(null, '', '#/overview')
  return m[1]
}

export const link = new Link()
