// What pages name has to be there: files, folders, headings and pictures, in docs/ and in the pages that only the forge shows. Nothing is asked of
// the network. Headings have the anchors of the forge, which the site has too.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../..')
const walk = (folder, deep) =>
  readdirSync(join(root, folder), { withFileTypes: true }).flatMap((e) => {
    const path = join(folder, e.name)
    if (e.isDirectory()) return deep && e.name !== 'node_modules' && !e.name.startsWith('.') ? walk(path, true) : []
    return e.name.endsWith('.md') ? [path] : []
  })
const pages = [...walk('.', false), ...walk('docs', true), ...walk('examples', true), ...walk('web', false), ...walk('deploy', true)]
let wrong = 0
const say = (line) => {
  wrong++
  console.error(line)
}

const plugins = ['remark-frontmatter', 'remark-gfm', 'remark-validate-links=repository:false,root:".."'].flatMap((p) => ['--use', p])
const checked = spawnSync(
  'node_modules/.bin/remark',
  [...plugins, '--no-stdout', '--quiet', '--frail', ...pages.map((p) => join('..', p))],
  {
    cwd: join(root, 'docs'),
    stdio: ['ignore', 'inherit', 'inherit'],
  },
)
if (checked.status !== 0) wrong++

// Markup is nothing that remark looks into, and whether a picture is used is nobody's question but ours.
const used = new Set()
for (const page of pages) {
  const text = readFileSync(join(root, page), 'utf8').replaceAll(/^(```|~~~)[\s\S]*?^\1/gm, '')
  for (const [, markdown, markup] of text.matchAll(/!\[[^\]]*\]\(([^)\s]+)|(?:\s(?:src|srcset|href))="([^"]+)"/g)) {
    const name = markdown ?? markup
    if (/^[a-z]+:|^#/i.test(name)) continue
    const file = relative(root, resolve(root, dirname(page), name))
    if (!existsSync(join(root, file))) say(`${page}: ${name} is not there`)
    used.add(file)
    // The site shows its sister on dark pages.
    if (page.startsWith('docs/') && file.endsWith('-light.png')) {
      const dark = file.replace(/-light\.png$/, '-dark.png')
      if (!existsSync(join(root, dark))) say(`${page}: ${name} has no ${dark}: make screenshots`)
      used.add(dark)
    }
  }
}
let sum = 0
for (const file of ['docs/demo.svg', ...readdirSync(join(root, 'docs/pictures')).map((name) => `docs/pictures/${name}`)]) {
  const { size } = statSync(join(root, file))
  sum += size
  if (size > 150 * 1024) say(`${file} has ${size} bytes: 150 KiB at most`)
  if (!used.has(file)) say(`${file} is on no page`)
}
if (sum > 1024 * 1024) say(`the pictures have ${sum} bytes together: 1 MiB at most`)

if (wrong > 0) process.exit(1)
console.log(`${pages.length} pages: all links, headings and pictures are there`)
