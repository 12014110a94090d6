import { describe, expect, test } from 'vitest'
import { added } from './files'
import { jobDraft, jobProblems, mostShards, shardNames, type JobDraft } from './jobdraft.svelte'

describe('names of shards', () => {
  test('are those of the files, with directories where two are alike', () => {
    expect(shardNames(['in/a.csv', 'in/b.csv'])).toEqual(['a.csv', 'b.csv'])
    expect(shardNames(['2025/a.csv', '2026/a.csv', 'b.csv'])).toEqual(['2025-a.csv', '2026-a.csv', 'b.csv'])
  })
  test('are different, whatever they come from', () => {
    const names = shardNames(['a/x', 'a-x', 'b/x', 'x', 'a\\x'])
    expect(new Set(names).size).toBe(5)
  })
  test('can be those of files', () => {
    for (const n of shardNames(['..', '.', 'a\nb', 'ä'.repeat(300), 'd/..'])) {
      expect(n).not.toMatch(/^\.{1,2}$|[/\\\p{Cc}]/u)
      expect(new TextEncoder().encode(n).length).toBeLessThanOrEqual(255)
    }
  })
})

describe('what is wrong with a job', () => {
  const good: JobDraft = {
    name: '',
    module: new File([''], 'p.wasm'),
    inputs: [{ path: 'a', file: new File(['1'], 'a') }],
    inputPath: '',
    args: '',
    env: '',
    time: '',
    memory: '',
    output: '',
    parallel: '',
    hedge: false,
  }
  test.each([
    [{}, []],
    [{ module: undefined, inputs: [] }, ['inputs', 'module']],
    [{ args: "'" }, ['args']],
    [{ env: 'x' }, ['env']],
    [{ time: 'soon', memory: 'much', output: '-1' }, ['memory', 'output', 'time']],
    [{ parallel: '0' }, ['parallel']],
    [{ parallel: '1025' }, ['parallel']],
    [{ parallel: '1024' }, []],
    [{ inputPath: '../x' }, ['inputPath']],
    [{ inputPath: '/x' }, ['inputPath']],
    [{ inputPath: 'data/x.csv' }, []],
  ] as [Partial<JobDraft>, string[]][])('%j: %j', (over, fields) => {
    expect(Object.keys(jobProblems({ ...good, ...over })).sort()).toEqual(fields)
  })
})

test('more files than a job takes are not left out without a word', () => {
  const file = new File(['x'], 'x')
  const files = Array.from({ length: mostShards }, (_, i) => ({ path: String(i), file }))
  const all = added(files, [
    { path: '0', file },
    { path: 'one more', file },
  ])
  expect(all.length).toBe(mostShards + 1)
  expect(jobProblems({ ...jobDraft, inputs: files }).inputs).toBeUndefined()
  expect(jobProblems({ ...jobDraft, inputs: all }).inputs).toMatch(/at most/)
})
