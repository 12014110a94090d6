import { get, url } from './api'
import type { KnownMetric, Peer } from './types'

/** More peers than this are not shown: a page has 1,000 of them. */
const pages = 3

async function all<T extends { next_page_token: string }>(path: string, signal: AbortSignal): Promise<T[]> {
  const found: T[] = []
  for (let token = ''; found.length < pages;) {
    const page = await get<T>(url(path, { page_size: 1000, page_token: token }), signal)
    found.push(page)
    token = page.next_page_token
    if (token === '') break
  }
  return found
}

export async function allPeers(signal: AbortSignal): Promise<Peer[]> {
  return (await all<{ peers: Peer[]; next_page_token: string }>('/v1/peers', signal)).flatMap((p) => p.peers)
}

export async function allMetrics(signal: AbortSignal): Promise<KnownMetric[]> {
  return (await all<{ metrics: KnownMetric[]; next_page_token: string }>('/v1/metrics', signal)).flatMap((p) => p.metrics)
}
