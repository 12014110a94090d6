// Builds the page twice into folders of its own, and compares both with what is kept in the repository: plain files byte for byte, packed ones by what is in them.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'

const web = fileURLToPath(new URL('..', import.meta.url))
const kept = files(join(web, '../gateway/internal/dashboard/dist'))
const wrong = new Set()
const folder = mkdtempSync(join(tmpdir(), 'dashboard-'))
try {
  for (const n of ['1', '2']) {
    const out = join(folder, n)
    execFileSync('npm', ['run', '--silent', 'build'], {
      cwd: web,
      env: { ...process.env, SHALLOT_DIST: out },
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const built = files(out)
    for (const name of new Set([...kept.keys(), ...built.keys()])) {
      const [a, b] = [kept.get(name), built.get(name)]
      if (!a || !b || !a.equals(b)) wrong.add(name)
    }
  }
} finally {
  rmSync(folder, { recursive: true })
}
if (wrong.size > 0) {
  console.error(`the dashboard that is kept is not what its sources build (${[...wrong].join(', ')}): run make web and commit`)
  process.exit(1)
}
console.log('the dashboard that is kept is what its sources build')

function files(root) {
  const found = new Map()
  for (const e of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!e.isFile()) continue
    const path = join(e.parentPath, e.name)
    const bytes = readFileSync(path)
    found.set(relative(root, path), e.name.endsWith('.gz') ? gunzipSync(bytes) : bytes)
  }
  return found
}
