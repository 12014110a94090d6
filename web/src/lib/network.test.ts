import { describe, expect, test } from 'vitest'
import { neighbours, outer, picture, ringOf, sectorOf, type Division } from './network'
import type { KnownMetric, Peer } from './types'

function network(n: number) {
  const peers: Peer[] = []
  const metrics: KnownMetric[] = []
  for (let i = 0; i < n; i++) {
    const peer_id = `peer-${i}`
    peers.push({
      peer_id,
      alias: '',
      role: 'provider',
      state: i % 11 === 0 ? 'unavailable' : 'available',
      capabilities: [{ type: 'sum', version: '1', max_limits: null, attributes: {} }],
      first_seen: null,
      last_seen: null,
      rtt: i % 7 === 0 ? null : `${((i * 37) % 400) / 1000}s`,
      connected: i % 2 === 0,
    })
    const cpu = { model: '', cores: 1, threads: [1, 4, 16, 64][i % 4] ?? 1, load: 0, load1: 0 }
    if (i % 5 !== 0)
      metrics.push({
        metric: { peer_id, cpu, memory: null, disk: null, gpus: [], queue: null },
        received_at: null,
        age: null,
        own: false,
        alias: '',
      })
  }
  return neighbours(peers, metrics)
}

describe.each([0, 1, 3, 12, 130, 1000, 3000])('a picture of %i peers', (n) => {
  test.each(['class', 'types', 'state'] as Division[])('by %s has all of them, within it and apart', (by) => {
    const p = picture(network(n), by)
    expect(p.dots.length).toBe(n)
    expect(new Set(p.dots.map((d) => d.key)).size).toBe(n)
    for (const d of p.dots) expect(Math.hypot(d.x, d.y)).toBeLessThan(outer)
    if (n > 1000) return
    let closest = Infinity
    p.dots.forEach((a, i) => p.dots.slice(i + 1).forEach((b) => (closest = Math.min(closest, Math.hypot(a.x - b.x, a.y - b.y)))))
    expect(closest).toBeGreaterThan(2 * p.radius)
    if (n <= 130) expect(p.radius).toBeGreaterThanOrEqual(6)
  })
})

test('the same peers are at the same place, in whatever order they come', () => {
  const list = network(40)
  const places = (l: typeof list) => new Map(picture(l, 'class').dots.map((d) => [d.key, `${d.x} ${d.y}`]))
  expect(places([...list].reverse())).toEqual(places(list))
})

test('rings and parts', () => {
  expect([undefined, 0.001, 0.05, 5].map(ringOf)).toEqual([7, 0, 3, 6])
  const [n] = network(1)
  if (!n) throw new Error('no peer')
  expect(sectorOf(n, 'class')).toBe('unknown')
  expect(sectorOf({ ...n, peer: { ...n.peer, capabilities: [] } }, 'types')).toBe('nothing')
})
