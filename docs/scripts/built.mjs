// What the built site's pages ask for is in the site: every address within it, with its anchor, and nothing from anybody else but links that a reader follows.
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'

const site = resolve(import.meta.dirname, '../../dist/docs')
const pages = readdirSync(site, { recursive: true }).filter((name) => name.endsWith('.html') && name !== '404.html')
const ids = new Map()
const html = (file) => {
  if (!ids.has(file)) {
    const text = readFileSync(file, 'utf8')
    ids.set(file, { text, ids: new Set([...text.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id)) })
  }
  return ids.get(file)
}
let wrong = 0
const say = (line) => {
  wrong++
  console.error(line)
}
for (const page of pages) {
  const file = join(site, page)
  for (const [, tag, attribute, address] of html(file).text.matchAll(/<([a-z]+)\b[^>]*?\s(href|src)="([^"]*)"/g)) {
    if (/^[a-z]+:/i.test(address) || address.startsWith('//')) {
      if (tag !== 'a') say(`${page}: <${tag} ${attribute}="${address}"> is from elsewhere`)
      continue
    }
    const [path, anchor] = address.split('#')
    let target = path === '' ? file : path.startsWith('/') ? join(site, path) : resolve(dirname(file), path)
    if (existsSync(target) && statSync(target).isDirectory()) target = join(target, 'index.html')
    if (!existsSync(target)) say(`${page}: ${address} is not there`)
    else if (anchor && target.endsWith('.html') && !html(target).ids.has(decodeURIComponent(anchor).replaceAll('&amp;', '&')))
      say(`${page}: ${relative(site, target)} has no #${anchor}`)
  }
}
if (wrong > 0) process.exit(1)
console.log(`${pages.length} pages of the site: all that they ask for is there`)
