// What the site's menus list. A page is called what its first heading says; one that is not there is left out.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { DefaultTheme } from 'vitepress'
import { docs } from './forge'

const groups = {
  'Begin here': ['index', 'tutorial', 'using'],
  'How to': [
    'how-to/join-a-network',
    'how-to/offer-a-machine',
    'how-to/write-an-executor',
    'how-to/behind-a-censor',
    'how-to/scale-a-node',
    'how-to/why-a-task-failed',
  ],
  Operations: ['operations'],
  Reference: ['reference/cli', 'settings', 'reference/rest', 'reference/grpc', 'reference/errors', 'metrics', 'executors'],
  Explanation: ['explanation/architecture', 'explanation/life-of-a-task', 'explanation/threat-model', 'explanation/comparison', 'speed'],
} as const

function page(path: string): { text: string; link: string } | undefined {
  const file = join(docs, `${path}.md`)
  if (!existsSync(file)) return undefined
  const heading = /^# (.+)$/m.exec(readFileSync(file, 'utf8'))?.[1] ?? path
  return { text: heading.replaceAll('`', ''), link: path === 'index' ? '/' : `/${path}` }
}

const listed = Object.entries(groups)
  .map(([text, paths]) => ({ text, items: paths.map(page).filter((p) => p !== undefined) }))
  .filter(({ items }) => items.length > 0)

const events = { text: 'Events between nodes (AsyncAPI)', link: '/reference/events.asyncapi.yaml', target: '_self' }

export const sidebar: DefaultTheme.SidebarItem[] = listed.map(({ text, items }) => ({
  text,
  items: text === 'Reference' ? [...items, events] : items,
}))

export const nav: DefaultTheme.NavItem[] = listed.flatMap(({ text, items }) => {
  const begin = text === 'Begin here'
  const first = begin ? items.find(({ link }) => link === '/tutorial') : items[0]
  const here = begin ? '^/tutorial' : items.map(({ link }) => `^${link}`).join('|')
  return first ? [{ text: begin ? 'Tutorial' : text, link: first.link, activeMatch: here }] : []
})
