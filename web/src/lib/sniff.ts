/** What bytes are, judged by the bytes alone: what a program says of its result is not believed. */
export type Kind = 'text' | 'png' | 'jpeg' | 'gif' | 'webp' | 'bytes'

const pictures: { kind: Kind; at: number; magic: number[]; and?: { at: number; magic: number[] } }[] = [
  { kind: 'png', at: 0, magic: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a] },
  { kind: 'jpeg', at: 0, magic: [0xff, 0xd8, 0xff] },
  { kind: 'gif', at: 0, magic: [0x47, 0x49, 0x46, 0x38] },
  { kind: 'webp', at: 0, magic: [0x52, 0x49, 0x46, 0x46], and: { at: 8, magic: [0x57, 0x45, 0x42, 0x50] } },
]

/** Pictures are those that every browser decodes without running anything: never SVG, which is a program. */
export function sniff(b: Uint8Array): Kind {
  const has = (at: number, magic: number[]) => magic.every((v, i) => b[at + i] === v)
  for (const p of pictures) if (has(p.at, p.magic) && (!p.and || has(p.and.at, p.and.magic))) return p.kind
  return isText(b) ? 'text' : 'bytes'
}

export function pictureType(kind: Kind): string | undefined {
  return kind === 'text' || kind === 'bytes' ? undefined : `image/${kind}`
}

// UTF-8 that may end in the middle of a character, with no control characters but those of text and terminals.
function isText(b: Uint8Array): boolean {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(b.subarray(0, 65_536), { stream: true })
  } catch {
    return false
  }
  // eslint-disable-next-line no-control-regex -- these are what is looked for
  return !/[\u0000-\u0006\u000e-\u001a\u001c-\u001f]/.test(text)
}

/** Text without what terminals take as orders: colours and the like of a program's output. */
export function plain(text: string): string {
  // eslint-disable-next-line no-control-regex -- these are what is removed
  return text.replace(/\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g, '')
}

/** Lines of 16 bytes: offset, hex, characters. */
export function hexdump(b: Uint8Array, most = 4096): string {
  const lines: string[] = []
  for (let at = 0; at < Math.min(b.length, most); at += 16) {
    const row = [...b.subarray(at, Math.min(at + 16, most))]
    const hex = row.map((v) => v.toString(16).padStart(2, '0'))
    const chars = row.map((v) => (v >= 0x20 && v < 0x7f ? String.fromCharCode(v) : '·')).join('')
    lines.push(
      `${at.toString(16).padStart(8, '0')}  ${hex.slice(0, 8).join(' ').padEnd(23)}  ${hex.slice(8).join(' ').padEnd(23)}  ${chars}`,
    )
  }
  return lines.join('\n')
}

/**
 * The rows of text that is a table: comma, tab or semicolon separated with the same number of cells in every row, or lines of JSON objects. undefined for what is none. The first row is the head.
 */
export function table(text: string, most = 1000): string[][] | undefined {
  const t = text.trim()
  if (t === '') return undefined
  const first = t.slice(0, t.indexOf('\n') < 0 ? t.length : t.indexOf('\n'))
  if (/^\s*[[{]/.test(t)) return objects(t, most)
  for (const by of ['\t', ',', ';']) {
    if (!first.includes(by)) continue
    const rows = separated(t, by, most)
    const width = rows[0]?.length ?? 0
    if (rows.length > 1 && width > 1 && rows.every((r) => r.length === width)) return rows
  }
  return undefined
}

/** Fields between separators; a field in quotes may have separators and line ends in it, and doubled quotes. */
export function separated(text: string, by: string, most: number): string[][] {
  const rows: string[][] = []
  let row: string[] = []
  let field = ''
  let quoted = false
  const end = () => {
    row.push(field)
    field = ''
  }
  for (let i = 0; i < text.length && rows.length < most; i++) {
    const c = text[i] ?? ''
    if (quoted) {
      if (c !== '"') field += c
      else if (text[i + 1] === '"') field += text[++i] ?? ''
      else quoted = false
    } else if (c === '"' && field === '') quoted = true
    else if (c === by) end()
    else if (c === '\n') {
      end()
      rows.push(row)
      row = []
    } else if (c !== '\r') field += c
  }
  if (rows.length < most && (field !== '' || row.length > 0)) {
    end()
    rows.push(row)
  }
  return rows
}

function objects(text: string, most: number): string[][] | undefined {
  let list: unknown[]
  try {
    const whole: unknown = JSON.parse(text)
    list = Array.isArray(whole) ? whole : [whole]
  } catch {
    try {
      list = text
        .split('\n')
        .filter((l) => l.trim() !== '')
        .slice(0, most)
        .map((l) => JSON.parse(l) as unknown)
    } catch {
      return undefined
    }
  }
  const rows = list.slice(0, most)
  if (rows.length === 0 || !rows.every((r) => typeof r === 'object' && r !== null && !Array.isArray(r))) return undefined
  const heads = [...new Set(rows.flatMap((r) => Object.keys(r as object)))].slice(0, 50)
  if (heads.length === 0) return undefined
  const cell = (v: unknown) => (v === undefined || v === null ? '' : typeof v === 'object' ? JSON.stringify(v) : String(v))
  return [heads, ...rows.map((r) => heads.map((h) => cell((r as Record<string, unknown>)[h])))]
}
