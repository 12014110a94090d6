// Puts a .gz beside each larger file of the built page, and says what all of it weighs. The bytes of a .gz depend on the zlib that made it, so what is kept is
// compared after unpacking (dist.mjs).
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import { gzipSync } from 'node:zlib'

const dist = process.env.SHALLOT_DIST ?? new URL('../../gateway/internal/dashboard/dist', import.meta.url).pathname
export const budget = 150 << 10

let sum = 0
for (const e of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  if (!e.isFile() || e.name.endsWith('.gz')) continue
  const path = join(e.parentPath, e.name)
  const bytes = readFileSync(path)
  const small = gzipSync(bytes, { level: 9 })
  const kept = ['.js', '.css', '.html', '.svg'].includes(extname(e.name)) && bytes.length > 1024
  if (kept) writeFileSync(path + '.gz', small)
  sum += kept ? small.length : bytes.length
}
console.log(`${(sum / 1024).toFixed(1)} KiB compressed in all, of ${budget / 1024} KiB at most`)
if (sum > budget) {
  console.error('the dashboard has become too large')
  process.exit(1)
}
