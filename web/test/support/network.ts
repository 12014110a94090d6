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

export interface Network {
  home: string
  consumer: Node
  provider: Node
  run(...args: string[]): Promise<string>
  close(): Promise<void>
}

/** Starts providers and a consumer, and ends when all know each other. */
export async function network(providers: number): Promise<Network> {
  if (bin === '') throw new Error('SHALLOT_BIN says where the programs are: use make test-web')
  const home = mkdtempSync(join(tmpdir(), 'sh-'))
  const dev = spawn(shallot, ['dev', '--home', home, '--providers', String(providers)], { stdio: ['ignore', 'pipe', 'pipe'] })
  const said = await until(dev, /^ready$/m)
  const nodes = await Promise.all(
    [...said.matchAll(/^(\S+)\s+12D3\S+\s+(http:\S+)\s+(\S+)$/gm)].map(async ([, name = '', url = '', at = '']) => {
      const { token_file } = JSON.parse(await run('--home', at, 'node', '--output', 'json')) as { token_file: string }
      return { name, url, home: at, token: readFileSync(token_file, 'utf8').trim() }
    }),
  )
  const consumer = nodes.find((n) => n.name.startsWith('consumer'))
  const provider = nodes.find((n) => n.name.startsWith('provider'))
  if (!consumer || !provider) throw new Error(`shallot dev said ${said}`)
  return {
    home,
    consumer,
    provider,
    run: (...args) => run('--home', consumer.home, ...args),
    close: async () => {
      await stop(dev, 'SIGINT')
      rmSync(home, { recursive: true, force: true })
    },
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

/** A provider of its own that joins through a node's address. */
export async function lone(bootstrap: string): Promise<Lone> {
  const home = mkdtempSync(join(tmpdir(), 'sh-'))
  const up = spawn(shallot, ['up', '--role', 'provider', '--home', home, '--bootstrap', bootstrap], { stdio: ['ignore', 'pipe', 'pipe'] })
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
