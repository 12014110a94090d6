import { post, upload } from './api'
import { mostFiles } from './files'
import { count, parseDuration, parseSize, splitWords } from './format'
import type { Task } from './types'

export interface Input {
  path: string
  file: File
}

/** What somebody is about to submit. It outlives the screen, so that nothing that was typed is lost by looking at another. */
export interface Draft {
  type: string
  addends: string
  module: File | undefined
  args: string
  env: string
  stdin: string
  stdinFile: File | undefined
  inputs: Input[]
  options: string
  time: string
  memory: string
  output: string
  attempts: string
  replicas: string
  providers: string
  labels: string
}

export const empty = (): Draft => ({
  type: 'sum',
  addends: '',
  module: undefined,
  args: '',
  env: '',
  stdin: '',
  stdinFile: undefined,
  inputs: [],
  options: '',
  time: '',
  memory: '',
  output: '',
  attempts: '',
  replicas: '',
  providers: '',
  labels: '',
})

const stored = 'shallot-draft'

function restore(): Draft {
  try {
    const texts = JSON.parse(sessionStorage.getItem(stored) ?? '{}') as Partial<Draft>
    const d = empty()
    for (const k of Object.keys(d) as (keyof Draft)[]) if (typeof texts[k] === 'string') Object.assign(d, { [k]: texts[k] })
    return d
  } catch {
    return empty()
  }
}

export const draft: Draft = $state(restore())

/** Keeps the texts over a reload of the page; files cannot be kept. */
export function store(): void {
  try {
    sessionStorage.setItem(stored, JSON.stringify(Object.fromEntries(Object.entries(draft).filter(([, v]) => typeof v === 'string'))))
  } catch {
    // A browser that keeps nothing.
  }
}

/** The draft is of a task whose input is not known here; the form says so until something is submitted. */
export const again = $state({ task: '' })

export function fill(d: Partial<Draft>): void {
  Object.assign(draft, empty(), d)
  again.task = ''
}

/** What was submitted from this page, by task, so that it can be run again: REST does not give a task's payload back. */
const submitted = new Map<string, Draft>()

export function submittedAs(task: string): Draft | undefined {
  return submitted.get(task)
}

/** What is wrong with a draft, by field; empty when it can be submitted. */
export function problems(d: Draft): Partial<Record<keyof Draft, string>> {
  const p: Partial<Record<keyof Draft, string>> = {}
  if (d.type === 'sum') {
    const words = d.addends.split(/[\s,;+]+/).filter((w) => w !== '')
    const bad = words.find((w) => !/^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(w))
    if (words.length === 0) p.addends = 'Give numbers, such as 0.1 0.2.'
    else if (bad !== undefined) p.addends = `“${bad}” is no number: give decimals, such as -1.25 or 1e9.`
  }
  if (d.type === 'wasm') {
    if (!d.module) p.module = 'Choose a WebAssembly file, built for WASI preview 1.'
    if (splitWords(d.args).open) p.args = 'A quote is not closed.'
    const bad = lines(d.env).find((l) => !/^[^=]+=/.test(l))
    if (bad !== undefined) p.env = `“${bad}” is not NAME=VALUE.`
  }
  if (d.type !== 'sum' && d.inputs.length > mostFiles) p.inputs = `A task takes ${count(mostFiles)} files at most.`
  Object.assign(p, limitProblems(d))
  if (d.attempts.trim() !== '' && !/^[1-9]\d?$/.test(d.attempts.trim())) p.attempts = 'Give a number from 1 to 99.'
  if (d.replicas.trim() !== '' && !/^[1-8]$/.test(d.replicas.trim())) p.replicas = 'Give a number from 1 to 8.'
  const label = lines(d.labels).find((l) => !/^[^=]+=/.test(l))
  if (label !== undefined) p.labels = `“${label}” is not NAME=VALUE.`
  else if (lines(d.labels).length > 16) p.labels = 'There can be 16 labels at most.'
  return p
}

interface Limited {
  time: string
  memory: string
  output: string
}

export function limitProblems(d: Limited): Partial<Record<keyof Limited, string>> {
  const p: Partial<Record<keyof Limited, string>> = {}
  if (d.time.trim() !== '' && parseDuration(d.time) === undefined) p.time = 'Give a time, such as 30s or 5m.'
  if (d.memory.trim() !== '' && parseSize(d.memory) === undefined) p.memory = 'Give a size, such as 64MiB.'
  if (d.output.trim() !== '' && parseSize(d.output) === undefined) p.output = 'Give a size, such as 10MiB.'
  return p
}

/** The limits of a specification; undefined where all are left to the provider. */
export function limitsOf(d: Limited): Record<string, string> | undefined {
  const limits: Record<string, string> = {}
  const [time, memory, output] = [parseDuration(d.time), parseSize(d.memory), parseSize(d.output)]
  if (time) limits['time'] = time
  if (memory) limits['memory'] = String(memory)
  if (output) limits['output'] = String(output)
  return Object.keys(limits).length > 0 ? limits : undefined
}

export const lines = (text: string): string[] =>
  text
    .split('\n')
    .map((l) => l.trim())
    .filter((l) => l !== '')

export const pairs = (text: string): Record<string, string> =>
  Object.fromEntries(lines(text).map((l) => [l.slice(0, l.indexOf('=')).trim(), l.slice(l.indexOf('=') + 1)]))

export const base64 = (text: string): string => base64Bytes(new TextEncoder().encode(text))

export function base64Bytes(bytes: Uint8Array): string {
  let s = ''
  for (let i = 0; i < bytes.length; i += 0x8000) s += String.fromCharCode(...bytes.subarray(i, i + 0x8000))
  return btoa(s)
}

// An upload that nothing uses is deleted after an hour; a second try within that time need not send it again.
const uploads = new WeakMap<File, { id: string; at: number }>()
let last = { key: '', request: '' }

/** The specification of a draft, with its files as upload says. */
export async function specification(d: Draft, blob: (file: File) => Promise<object>): Promise<Record<string, unknown>> {
  const spec: Record<string, unknown> = { type: d.type }
  if (d.type === 'sum') spec['sum'] = { addends: d.addends.split(/[\s,;+]+/).filter((w) => w !== '') }
  else if (d.type === 'wasm' && d.module) {
    const inputs = []
    const module = await blob(d.module)
    for (const i of d.inputs) inputs.push({ path: i.path, content: await blob(i.file) })
    const wasm: Record<string, unknown> = { module, args: splitWords(d.args).words, env: pairs(d.env), inputs }
    if (d.stdinFile) wasm['stdin'] = await blob(d.stdinFile)
    else if (d.stdin !== '') wasm['stdin'] = { inline: base64(d.stdin) }
    spec['wasm'] = wasm
  } else {
    const parts = []
    for (const i of d.inputs) parts.push({ path: `input:${i.path}`, content: await blob(i.file) })
    if (d.stdinFile) parts.push({ path: 'stdin', content: await blob(d.stdinFile) })
    else if (d.stdin !== '') parts.push({ path: 'stdin', content: { inline: base64(d.stdin) } })
    spec['external'] = { options: base64(d.options), parts }
  }
  const limits = limitsOf(d)
  if (limits) spec['limits'] = limits
  const placement: Record<string, unknown> = {}
  if (d.attempts.trim()) placement['max_attempts'] = Number(d.attempts)
  if (d.replicas.trim()) placement['replicas'] = Number(d.replicas)
  if (d.providers.trim()) placement['providers'] = d.providers.split(/[\s,]+/).filter((w) => w !== '')
  if (Object.keys(placement).length > 0) spec['placement'] = placement
  if (lines(d.labels).length > 0) spec['labels'] = pairs(d.labels)
  return spec
}

/** Sends the files that were not sent yet, and submits. The same draft again is the same task, however often it is tried. */
export async function submit(d: Draft, progress: (sent: number, of: number, name: string) => void, signal: AbortSignal): Promise<Task> {
  const files = [d.type === 'wasm' ? d.module : undefined, d.stdinFile, ...d.inputs.map((i) => i.file)].filter((f) => f !== undefined)
  const total = files.reduce((n, f) => n + f.size, 0)
  let sent = 0
  const blob = async (file: File) => {
    const old = uploads.get(file)
    if (!old || Date.now() - old.at > 45 * 60_000) {
      const { upload_id } = await upload<{ upload_id: string }>('/v1/uploads', file, (n) => progress(sent + n, total, file.name), signal)
      uploads.set(file, { id: upload_id, at: Date.now() })
    }
    sent += file.size
    return { upload_id: uploads.get(file)?.id }
  }
  const spec = await specification(d, blob)
  const key = JSON.stringify(spec)
  if (key !== last.key) last = { key, request: randomId() }
  const task = await post<Task>('/v1/tasks', { request_id: last.request, spec }, { signal })
  last = { key: '', request: '' }
  again.task = ''
  for (const f of files) uploads.delete(f)
  submitted.set(task.id, $state.snapshot(d) as Draft)
  const copy = submitted.get(task.id)
  if (copy) Object.assign(copy, { module: d.module, stdinFile: d.stdinFile, inputs: d.inputs.map((i) => ({ path: i.path, file: i.file })) })
  if (submitted.size > 200) submitted.delete(submitted.keys().next().value ?? '')
  return task
}

export function randomId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('')
}
