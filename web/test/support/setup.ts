// The network of real nodes that all files of test/real share: to start one for each would take longer than most of their tests.
import type { TestProject } from 'vitest/node'
import { network, type Nodes } from './network'

declare module 'vitest' {
  export interface ProvidedContext {
    nodes: Nodes
  }
}

export default async function (project: TestProject): Promise<() => Promise<void>> {
  const { nodes, close } = await network({ providers: process.env['SHALLOT_SCREENSHOTS'] ? 3 : 2 })
  project.provide('nodes', nodes)
  return close
}
