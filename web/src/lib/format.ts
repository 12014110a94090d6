/** Text for people from what REST says. All of it tolerates what is missing: nodes of other versions answer, too. */

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

export function bytes(n: number | string | null | undefined): string {
  if (n === null || n === undefined || n === '') return '–'
  let v = Number(n)
  if (!Number.isFinite(v)) return '–'
  let u = 0
  while (v >= 1024 && u < units.length - 1) {
    v /= 1024
    u++
  }
  return `${u === 0 || v >= 100 ? Math.round(v) : v.toFixed(1)} ${units[u]}`
}

/** Seconds of a duration as "1.500s", or of a number that is seconds already; undefined where there is none. */
export function seconds(d: string | number | null | undefined): number | undefined {
  if (d === null || d === undefined || d === '') return undefined
  const v = typeof d === 'number' ? d : Number(d.endsWith('s') ? d.slice(0, -1) : d)
  return Number.isFinite(v) ? v : undefined
}

/** A span of seconds, as short as it can be said: 3.2 ms, 450 ms, 3.2 s, 4 min 10 s, 3 h 5 min, 2 d 4 h. */
export function span(s: number | undefined): string {
  if (s === undefined || !Number.isFinite(s)) return '–'
  if (s < 0) s = 0
  if (s === 0) return '0 s'
  if (s < 0.0001) return 'under 0.1 ms'
  if (s < 0.01) return `${(s * 1000).toFixed(1)} ms`
  if (s < 1) return `${Math.round(s * 1000)} ms`
  if (s < 10) return `${s.toFixed(1)} s`
  if (s < 60) return `${Math.round(s)} s`
  const pair = (big: number, bigName: string, small: number, smallName: string) => {
    const b = Math.floor(s / big)
    const r = Math.floor((s % big) / small)
    return r > 0 ? `${b} ${bigName} ${r} ${smallName}` : `${b} ${bigName}`
  }
  if (s < 3600) return pair(60, 'min', 1, 's')
  if (s < 86_400) return pair(3600, 'h', 60, 'min')
  return pair(86_400, 'd', 3600, 'h')
}

/** Milliseconds since 1970; undefined where there is no time, also for the zero time of protobuf. */
export function time(t: string | null | undefined): number | undefined {
  if (!t) return undefined
  const v = Date.parse(t)
  return Number.isFinite(v) && v > 0 ? v : undefined
}

export function ago(t: string | null | undefined, now: number): string {
  const v = time(t)
  if (v === undefined) return '–'
  const s = (now - v) / 1000
  return s < 1 ? 'now' : `${span(Math.floor(s) < 60 ? Math.floor(s) : s).replace(/\.0 s$/, ' s')} ago`
}

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false })
const dayFormat = new Intl.DateTimeFormat(undefined, {
  year: 'numeric',
  month: 'short',
  day: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  hour12: false,
})

export function clock(t: string | null | undefined): string {
  const v = time(t)
  return v === undefined ? '–' : clockFormat.format(v)
}

export function day(t: string | null | undefined): string {
  const v = time(t)
  return v === undefined ? '–' : dayFormat.format(v)
}

/** The first digits of an id, enough to tell it from others on a screen. */
export function short(id: string, n = 8): string {
  return id.length > n + 2 ? id.slice(0, n) : id
}

/** A peer as people see it: in anonymous mode its alias, else the end of its id, since all ids begin alike. */
export function peerName(p: { alias?: string; peer_id?: string }): string {
  if (p.alias) return p.alias
  const id = p.peer_id ?? ''
  return id.length > 12 ? '…' + id.slice(-8) : id || '–'
}

export function peerKey(p: { alias?: string; peer_id?: string }): string {
  return p.alias || p.peer_id || ''
}

export function percent(v: number | undefined, digits = 0): string {
  return v === undefined || !Number.isFinite(v) ? '–' : `${(v * 100).toFixed(digits)} %`
}

export function count(v: number | undefined): string {
  return v === undefined ? '–' : v.toLocaleString('en-US').replaceAll(',', '\u202f')
}

/** How long a task took, or has taken until now, in seconds. */
export function took(t: { created_at: string | null; finished_at: string | null }, now: number): number | undefined {
  const from = time(t.created_at)
  if (from === undefined) return undefined
  return Math.max(0, ((time(t.finished_at) ?? now) - from) / 1000)
}

export const terminal = (state: string): boolean => ['COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED'].includes(state)

/** "64MiB", "1.5 GiB", "1024": bytes; undefined for what is none. */
export function parseSize(text: string): number | undefined {
  const m = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)\s*$/i.exec(text)
  if (!m) return undefined
  const power = ' kmgt'.indexOf((m[2] ?? '').toLowerCase() || ' ')
  const base = m[3]?.toLowerCase() === 'b' && power > 0 ? 1000 : 1024
  return Math.round(Number(m[1]) * base ** power)
}

/** "2s", "1.5 min", "1h30m": a duration as protobuf's JSON has it; undefined for what is none. */
export function parseDuration(text: string): string | undefined {
  const t = text.trim().toLowerCase()
  if (t === '') return undefined
  const unit: Record<string, number> = { ms: 0.001, s: 1, m: 60, min: 60, h: 3600, d: 86_400 }
  if (/^\d+(\.\d+)?$/.test(t)) return `${Number(t)}s`
  const part = /\s*(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d)/y
  let sum = 0
  while (part.lastIndex < t.length) {
    const m = part.exec(t)
    if (!m) return undefined
    sum += Number(m[1]) * (unit[m[2] ?? ''] ?? 0)
  }
  return `${Number(sum.toFixed(3))}s`
}

/** Words as a shell splits them: blanks part, quotes keep together, a backslash takes the next character as it is. */
export function splitWords(text: string): { words: string[]; open: boolean } {
  const words: string[] = []
  let word: string | undefined
  let quote = ''
  for (let i = 0; i < text.length; i++) {
    const c = text[i] ?? ''
    if (quote !== '') {
      if (c === quote) quote = ''
      else if (c === '\\' && quote === '"' && i + 1 < text.length) word = (word ?? '') + (text[++i] ?? '')
      else word = (word ?? '') + c
    } else if (c === '"' || c === "'") {
      quote = c
      word ??= ''
    } else if (c === '\\' && i + 1 < text.length) word = (word ?? '') + (text[++i] ?? '')
    else if (/\s/.test(c)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else word = (word ?? '') + c
  }
  if (word !== undefined) words.push(word)
  return { words, open: quote !== '' }
}
