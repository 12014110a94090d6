// The pictures that README and docs show, from those that `make screenshots` has just drawn: few, with few colours, so that a clone stays small.
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import sharp from 'sharp'

const [from] = process.argv.slice(2)
if (!from) throw new Error('where the screenshots are: make screenshots')
const to = resolve(import.meta.dirname, '../pictures')
const chosen = { overview: 'overview-1280', task: 'task-1280', job: 'job-1280', network: 'many-network-1280', phone: 'overview-360' }

mkdirSync(to, { recursive: true })
const names = Object.entries(chosen).flatMap(([name, file]) =>
  ['light', 'dark'].map((look) => [`${name}-${look}.png`, `${file}-${look}.png`]),
)
for (const [name, file] of names)
  await sharp(join(from, file)).png({ palette: true, colours: 128, effort: 10, compressionLevel: 9 }).toFile(join(to, name))
for (const file of readdirSync(to)) if (!names.some(([name]) => name === file)) rmSync(join(to, file))
