// Real nodes: `shallot dev`, and a provider beside it that can be killed as a whole.
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const bin = process.env['SHALLOT_BIN'] ?? ''
export const shallot = join(bin, 'shallot')
export const examples = join(bin, 'examples')

export interface Node {
  name: string
  home: string
  url: string
  token: string
}

/** What is known of a network from outside of the process that started it. */
export interface Nodes {
  home: string
  consumer: Node
  provider: Node
}

export interface Network extends Nodes {
  run(...args: string[]): Promise<string>
}

export function reach(nodes: Nodes): Network {
  return { ...nodes, run: (...args) => run('--home', nodes.consumer.home, ...args) }
}

export interface Options {
  providers: number
  /** Over a private Tor network. */
  anonymous?: boolean
}

/** Starts providers and a consumer, in a private network where they are not anonymous, and ends when all know each other. */
export async function network({ providers, anonymous = false }: Options): Promise<{ nodes: Nodes; close(): Promise<void> }> {
  if (bin === '') throw new Error('SHALLOT_BIN says where the programs are: use make test-web')
  const home = mkdtempSync(join(tmpdir(), 'sh-'))
  if (!anonymous) await run('--home', home, 'network', 'create')
  const args = ['dev', '--home', home, '--providers', String(providers), ...(anonymous ? ['--anonymous'] : [])]
  const dev = spawn(shallot, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const close = async () => {
    await stop(dev, 'SIGINT')
    rmSync(home, { recursive: true, force: true })
  }
  try {
    const said = await until(dev, /^ready$/m)
    const all = await Promise.all(
      [...said.matchAll(/^((?:consumer|provider)\S*)\s+\S+\s+(http:\S+)\s+(\S+)$/gm)].map(async ([, name = '', url = '', at = '']) => {
        const { token_file } = JSON.parse(await run('--home', at, 'node', '--output', 'json')) as { token_file: string }
        return { name, url, home: at, token: readFileSync(token_file, 'utf8').trim() }
      }),
    )
    const consumer = all.find((n) => n.name.startsWith('consumer'))
    const provider = all.find((n) => n.name.startsWith('provider'))
    if (!consumer || !provider) throw new Error(`shallot dev said ${said}`)
    return { nodes: { home, consumer, provider }, close }
  } catch (error) {
    await close()
    throw error
  }
}

export function run(...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const p = spawn(shallot, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    let err = ''
    p.stdout.on('data', (d: Buffer) => (out += d.toString()))
    p.stderr.on('data', (d: Buffer) => (err += d.toString()))
    p.on('close', (code) => (code === 0 ? resolve(out) : reject(new Error(`shallot ${args.join(' ')} ended with ${code}: ${err}`))))
  })
}

export interface Lone {
  peer: string
  /** Ends all its processes at once, as a machine does that loses its power. */
  kill(): Promise<void>
  close(): Promise<void>
}

/** A provider of its own that joins by an invite. */
export async function lone(invite: string): Promise<Lone> {
  const home = mkdtempSync(join(tmpdir(), 'sh-'))
  await run('--home', home, 'network', 'join', invite)
  const up = spawn(shallot, ['up', '--role', 'provider', '--home', home], { stdio: ['ignore', 'pipe', 'pipe'] })
  await until(up, /ready/)
  const node = JSON.parse(await run('--home', home, 'node', '--output', 'json')) as { peer_id: string; processes: { pid: number }[] }
  return {
    peer: node.peer_id,
    kill: async () => {
      process.kill(up.pid ?? 0, 'SIGKILL')
      for (const p of node.processes) {
        try {
          process.kill(p.pid, 'SIGKILL')
        } catch {
          // It has ended with its supervisor.
        }
      }
      await ended(up)
    },
    close: async () => {
      await stop(up, 'SIGTERM')
      rmSync(home, { recursive: true, force: true })
    },
  }
}

function until(p: ChildProcess, what: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = ''
    const take = (d: Buffer) => {
      said += d.toString()
      if (what.test(said)) resolve(said)
    }
    p.stdout?.on('data', take)
    p.stderr?.on('data', take)
    p.once('close', (code) => reject(new Error(`it ended with ${code}: ${said}`)))
  })
}

function ended(p: ChildProcess): Promise<void> {
  return new Promise((resolve) => (p.exitCode !== null || p.signalCode !== null ? resolve() : p.once('close', () => resolve())))
}

async function stop(p: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (p.exitCode === null && p.signalCode === null) p.kill(signal)
  await ended(p)
}
