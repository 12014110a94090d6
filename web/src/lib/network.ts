import { peerKey, seconds } from './format'
import type { KnownMetric, Peer } from './types'

/** A peer with what is known of its resources. */
export interface Neighbour {
  key: string
  peer: Peer
  metric: KnownMetric | undefined
}

export function neighbours(peers: Peer[], metrics: KnownMetric[]): Neighbour[] {
  const by = new Map(metrics.map((m) => [m.alias || m.metric.peer_id, m]))
  // A peer that pages have twice, because the table changed between them, is one.
  const once = new Map(peers.map((peer) => [peerKey(peer), peer]))
  return [...once].map(([key, peer]) => ({ key, peer, metric: by.get(key) }))
}

/** The end of each ring in seconds of round trip; what is beyond or was not measured has rings of its own. */
const ends = [0.002, 0.01, 0.03, 0.1, 0.3, 1]
const ringNames = ['2 ms', '10 ms', '30 ms', '100 ms', '300 ms', '1 s', 'over 1 s', 'not measured']

export function ringOf(rtt: number | undefined): number {
  if (rtt === undefined) return ends.length + 1
  const i = ends.findIndex((e) => rtt <= e)
  return i < 0 ? ends.length : i
}

/** What kind of machine it is, by its processor. */
export function classOf(m: KnownMetric | undefined): string {
  const t = m?.metric.cpu?.threads ?? 0
  if (t === 0) return 'unknown'
  if (t <= 2) return '1–2 threads'
  if (t <= 8) return '3–8 threads'
  if (t <= 32) return '9–32 threads'
  return 'over 32 threads'
}

const classOrder = ['1–2 threads', '3–8 threads', '9–32 threads', 'over 32 threads', 'unknown']

export type Division = 'class' | 'types' | 'state'

export function sectorOf(n: Neighbour, by: Division): string {
  if (by === 'class') return classOf(n.metric)
  if (by === 'state') return n.peer.state || 'unknown'
  const types = n.peer.capabilities.map((c) => c.type).sort()
  return types.length === 0 ? 'nothing' : types.slice(0, 3).join(', ') + (types.length > 3 ? ' …' : '')
}

export interface Dot {
  key: string
  x: number
  y: number
  neighbour: Neighbour
}

export interface Picture {
  dots: Dot[]
  /** Radius of a dot. */
  radius: number
  rings: { name: string; from: number; to: number }[]
  sectors: { name: string; count: number; from: number; to: number }[]
}

/** The picture's outer radius; its middle is 0, 0. */
export const outer = 300
const inner = 46

/**
 * Peers around this node: the further away, the longer the round trip; each kind has its part of the circle, as large as it has peers. Dots are as large as they can be
 * without touching, and the same peers are always at the same place.
 */
export function picture(list: Neighbour[], by: Division): Picture {
  const ring = new Map(list.map((n) => [n.key, ringOf(seconds(n.peer.rtt))]))
  const used = [...new Set(ring.values())].sort((a, b) => a - b)
  const groups = new Map<string, Neighbour[]>()
  for (const n of list) {
    const s = sectorOf(n, by)
    groups.set(s, [...(groups.get(s) ?? []), n])
  }
  const names = [...groups.keys()].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))
  const sectors = spread(names, groups, list.length)
  const band = (outer - inner) / Math.max(1, used.length)
  const rings = used.map((r, i) => ({ name: ringNames[r] ?? '', from: inner + i * band, to: inner + (i + 1) * band }))

  for (let radius = 10; ; radius -= 0.5) {
    const dots: Dot[] = []
    let fits = true
    for (const s of sectors) {
      used.forEach((r, i) => {
        const here = (groups.get(s.name) ?? []).filter((n) => ring.get(n.key) === r).sort((a, b) => (a.key < b.key ? -1 : 1))
        const at = rings[i]
        if (here.length === 0 || !at) return
        fits = place(here, s, at, radius, dots) && fits
      })
    }
    if (fits || radius <= 1.5) return { dots, radius, rings, sectors }
  }
}

function rank(name: string): number {
  const i = classOrder.indexOf(name)
  return i < 0 ? 0 : i
}

// Each sector has a share of the circle, but none less than a name needs.
function spread(names: string[], groups: Map<string, Neighbour[]>, total: number): Picture['sectors'] {
  const least = Math.min(0.35, (2 * Math.PI) / Math.max(1, names.length))
  const free = 2 * Math.PI - least * names.length
  let at = -Math.PI / 2
  return names.map((name) => {
    const count = groups.get(name)?.length ?? 0
    const from = at
    at += least + (free * count) / Math.max(1, total)
    return { name, count, from, to: at }
  })
}

// Dots of one sector in one ring, on as many arcs as they need; false where they do not fit without touching.
function place(
  here: Neighbour[],
  s: { from: number; to: number },
  ring: { from: number; to: number },
  radius: number,
  dots: Dot[],
): boolean {
  const step = 2 * radius + 3
  const arcs = Math.max(1, Math.floor((ring.to - ring.from - 4) / step))
  const radii = Array.from({ length: arcs }, (_, i) => ring.from + ((i + 0.5) * (ring.to - ring.from)) / arcs)
  const room = radii.map((r) => Math.max(0, Math.floor(((s.to - s.from) * r - 6) / step)))
  const sum = room.reduce((a, b) => a + b, 0)
  const few = here.length <= Math.max(...room)
  let next = 0
  // A few are on the middle arc; more of them on all arcs, by the room that each has.
  radii.forEach((r, i) => {
    const share = few
      ? i === Math.floor(arcs / 2) || arcs === 1
        ? here.length
        : 0
      : Math.ceil((here.length * (room[i] ?? 0)) / Math.max(1, sum))
    const now = here.slice(next, i === arcs - 1 ? undefined : next + share)
    next += now.length
    now.forEach((n, k) => {
      const angle = s.from + ((k + 0.5) * (s.to - s.from)) / now.length
      dots.push({ key: n.key, x: r * Math.cos(angle), y: r * Math.sin(angle), neighbour: n })
    })
  })
  return few ? here.length <= (room[Math.floor(arcs / 2)] ?? 0) : here.length <= sum * 0.9
}
