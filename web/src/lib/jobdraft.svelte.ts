import { post, segment, upload } from './api'
import { base64Bytes, limitsOf, limitProblems, lines, pairs, randomId, type Input } from './draft.svelte'
import { count, splitWords } from './format'
import type { Job } from './types'

/** A job takes no more inputs than this. */
export const mostShards = 100_000

/** What somebody is about to begin a job with. As a task's draft, it outlives the screen. */
export interface JobDraft {
  name: string
  module: File | undefined
  inputs: Input[]
  /** Where the program finds its input below /in; empty: on standard input. */
  inputPath: string
  args: string
  env: string
  time: string
  memory: string
  output: string
  parallel: string
  hedge: boolean
}

const empty = (): JobDraft => ({
  name: '',
  module: undefined,
  inputs: [],
  inputPath: '',
  args: '',
  env: '',
  time: '',
  memory: '',
  output: '',
  parallel: '',
  hedge: false,
})

export const jobDraft: JobDraft = $state(empty())

/** What is wrong with a draft, by field; empty when the job can begin. */
export function jobProblems(d: JobDraft): Partial<Record<keyof JobDraft, string>> {
  const p: Partial<Record<keyof JobDraft, string>> = limitProblems(d)
  if (!d.module) p.module = 'Choose a WebAssembly file, built for WASI preview 1.'
  if (d.inputs.length === 0) p.inputs = 'Choose the files that the program is to be run over.'
  if (d.inputs.length > mostShards) p.inputs = `A job takes ${count(mostShards)} files at most.`
  if (splitWords(d.args).open) p.args = 'A quote is not closed.'
  const bad = lines(d.env).find((l) => !/^[^=]+=/.test(l))
  if (bad !== undefined) p.env = `“${bad}” is not NAME=VALUE.`
  if (d.parallel.trim() !== '' && !(/^\d{1,4}$/.test(d.parallel.trim()) && Number(d.parallel) >= 1 && Number(d.parallel) <= 1024))
    p.parallel = 'Give a number from 1 to 1024.'
  if (/^\/|(^|\/)\.\.?(\/|$)|\/$|\\/.test(d.inputPath.trim())) p.inputPath = 'Give a path below /in, such as input.csv.'
  return p
}

/** A name for each input that can be a file's: its own, with its directories where two have one name. */
export function shardNames(paths: string[]): string[] {
  const own = (p: string) => p.split('/').at(-1) ?? p
  const often = new Map<string, number>()
  for (const p of paths) often.set(own(p), (often.get(own(p)) ?? 0) + 1)
  const used = new Set<string>()
  return paths.map((p) => {
    const base = ((often.get(own(p)) ?? 0) > 1 ? p.replaceAll('/', '-') : own(p)).replace(/[\\\p{Cc}]/gu, '_')
    const fits = (suffix: string) => cut(base, 255 - suffix.length) + suffix
    let name = fits('')
    for (let n = 2; used.has(name) || name === '.' || name === '..'; n++) name = fits(`-${n}`)
    used.add(name)
    return name
  })
}

// At most so many bytes of UTF-8, and no half character.
function cut(text: string, most: number): string {
  let size = 0
  let out = ''
  for (const c of text) {
    size += new TextEncoder().encode(c).length
    if (size > most) return out
    out += c
  }
  return out
}

/** Larger inputs are uploads of their own; smaller ones go together, so many bytes and shards in a call. */
const inlineMost = 64 << 10
const callBytes = 1 << 20
const callShards = 200

// A job whose inputs are on their way: tried again, it goes on where it was.
let begun: { key: string; request: string; id: string; added: number } | undefined

/** Makes the job and gives it its inputs; it runs with the last. The same draft again goes on where an earlier try ended. Returns the job's id. */
export async function beginJob(
  d: JobDraft,
  progress: (done: number, of: number, what: string) => void,
  signal: AbortSignal,
): Promise<string> {
  const { module, inputs } = d
  if (!module) throw new Error('there is no program')
  const texts = Object.fromEntries(Object.entries(d).filter(([, v]) => typeof v !== 'object'))
  const key = JSON.stringify([
    texts,
    module.name,
    module.size,
    module.lastModified,
    inputs.map((i) => [i.path, i.file.size, i.file.lastModified]),
  ])
  if (begun?.key !== key) begun = { key, request: randomId(), id: '', added: 0 }
  const b = begun
  if (b.id === '') {
    const { upload_id } = await upload<{ upload_id: string }>('/v1/uploads', module, (n) => progress(n, module.size, module.name), signal)
    const limits = limitsOf(d)
    const spec = {
      task: {
        type: 'wasm',
        wasm: { module: { upload_id }, args: splitWords(d.args).words, env: pairs(d.env) },
        ...(limits ? { limits } : {}),
      },
      input_path: d.inputPath.trim(),
      total: inputs.length,
      parallel: Number(d.parallel) || 0,
      hedge: d.hedge,
      name: d.name.trim() || module.name,
    }
    b.id = (await post<{ job: Job }>('/v1/jobs', { request_id: b.request, spec }, { signal })).job.id
  }
  const names = shardNames(inputs.map((i) => i.path))
  while (b.added < inputs.length) {
    const shards: object[] = []
    for (let size = 0; shards.length < callShards && b.added + shards.length < inputs.length;) {
      const index = b.added + shards.length
      const file = inputs[index]?.file
      if (!file) break
      if (file.size > inlineMost) {
        const { upload_id } = await upload<{ upload_id: string }>('/v1/uploads', file, () => undefined, signal)
        shards.push({ index, name: names[index], content: { upload_id } })
        break // an upload that nothing uses is not kept for long: it is used at once
      }
      if ((size += file.size) > callBytes && shards.length > 0) break
      shards.push({ index, name: names[index], content: { inline: base64Bytes(new Uint8Array(await file.arrayBuffer())) } })
    }
    await post(`/v1/jobs/${segment(b.id)}/shards`, { shards }, { signal, timeout: 120_000 })
    b.added += shards.length
    progress(b.added, inputs.length, 'inputs')
  }
  begun = undefined
  Object.assign(jobDraft, empty())
  return b.id
}
