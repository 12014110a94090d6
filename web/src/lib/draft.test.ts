import { expect, test } from 'vitest'
import { empty, problems, specification, type Draft } from './draft.svelte'

const draft = (d: Partial<Draft>): Draft => ({ ...empty(), ...d })
const file = (name: string, text = 'x') => new File([text], name)
const blob = (f: File) => Promise.resolve({ upload_id: f.name })

test('what is wrong is said at its field', () => {
  expect(problems(draft({}))).toEqual({ addends: 'Give numbers, such as 0.1 0.2.' })
  expect(problems(draft({ addends: '1 two 3' })).addends).toContain('“two”')
  expect(problems(draft({ addends: '1, -2.5; 1e400\n7' }))).toEqual({})
  expect(problems(draft({ type: 'wasm' }))).toHaveProperty('module')
  expect(
    Object.keys(
      problems(
        draft({
          type: 'wasm',
          module: file('a.wasm'),
          args: "'",
          env: 'X',
          time: 'soon',
          memory: 'big',
          output: '?',
          attempts: '0',
          replicas: '9',
          labels: 'y',
        }),
      ),
    ),
  ).toEqual(['args', 'env', 'time', 'memory', 'output', 'attempts', 'replicas', 'labels'])
})

test('a sum', async () => {
  expect(await specification(draft({ addends: '0.1 0.2', time: '2s', memory: '64MiB', labels: 'a=b=c' }), blob)).toEqual({
    type: 'sum',
    sum: { addends: ['0.1', '0.2'] },
    limits: { time: '2s', memory: '67108864' },
    labels: { a: 'b=c' },
  })
})

test('a program with its files', async () => {
  const d = draft({
    type: 'wasm',
    module: file('p.wasm'),
    args: "-n 'a b'",
    env: 'LANG=C',
    stdin: 'hä',
    inputs: [{ path: 'd/x.csv', file: file('x.csv') }],
    replicas: '2',
    providers: 'p1, p2',
  })
  expect(await specification(d, blob)).toEqual({
    type: 'wasm',
    wasm: {
      module: { upload_id: 'p.wasm' },
      args: ['-n', 'a b'],
      env: { LANG: 'C' },
      stdin: { inline: 'aMOk' },
      inputs: [{ path: 'd/x.csv', content: { upload_id: 'x.csv' } }],
    },
    placement: { replicas: 2, providers: ['p1', 'p2'] },
  })
})

test('a type of somebody else', async () => {
  expect(await specification(draft({ type: 'render', options: '{}', inputs: [{ path: 'a', file: file('a') }], stdin: 'x' }), blob)).toEqual(
    {
      type: 'render',
      external: {
        options: 'e30=',
        parts: [
          { path: 'input:a', content: { upload_id: 'a' } },
          { path: 'stdin', content: { inline: 'eA==' } },
        ],
      },
    },
  )
})
