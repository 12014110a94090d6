import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

// `npm run dev` shows the sources against a running node: SHALLOT_URL is its gateway's address and SHALLOT_TOKEN its token, which never reach the browser.
const node = process.env['SHALLOT_URL'] ?? 'http://127.0.0.1:8080'
const token = process.env['SHALLOT_TOKEN'] ?? ''
const proxy = {
  target: node,
  changeOrigin: true,
  headers: { ...(token ? { authorization: `Bearer ${token}` } : {}), origin: node },
}

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: process.env['SHALLOT_DIST'] ?? '../gateway/internal/dashboard/dist',
    emptyOutDir: true,
    target: ['chrome123', 'firefox121', 'safari17.5'], // light-dark() of CSS, and what is older than that
    assetsInlineLimit: 0, // data: addresses would be more to allow in the policy than 'self'
    modulePreload: false,
    reportCompressedSize: false,
    license: { fileName: 'licenses.txt' }, // of the libraries that are in the page
  },
  server: { host: '127.0.0.1', proxy: { '/v1': proxy, '/metrics': proxy } },
  test: { include: ['src/**/*.test.ts'], environment: 'node', pool: 'threads', isolate: false },
})
