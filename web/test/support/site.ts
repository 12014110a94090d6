// Serves the built page as the gateway does, with its policy, before a REST that the test brings.
import { readFileSync, existsSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'

export const dist = process.env['SHALLOT_DIST'] ?? fileURLToPath(new URL('../../../gateway/internal/dashboard/dist', import.meta.url))

export const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
}

export type Handler = (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>

export interface Site {
  url: string
  close(): Promise<void>
}

/** Serves on a free port of loopback. rest answers what it knows and says whether it did; the rest is 404, as the gateway says it. */
export async function serve(rest: Handler): Promise<Site> {
  const server: Server = createServer((request, response) => {
    void (async () => {
      const path = new URL(request.url ?? '/', 'http://x').pathname
      if (path.startsWith('/v1/') || path === '/metrics') {
        if (await rest(request, response)) return
        return json(response, 404, { code: 'NOT_FOUND', reason: 'PATH_NOT_FOUND', message: `there is no ${path}` })
      }
      const file = join(dist, normalize(path === '/' ? '/index.html' : path))
      if (!file.startsWith(dist) || !existsSync(file)) {
        response.writeHead(404)
        response.end()
        return
      }
      response.writeHead(200, {
        'content-type': types[extname(file)] ?? 'application/octet-stream',
        'content-security-policy': policy,
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
      })
      response.end(readFileSync(file))
    })()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

export function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
  response.end(JSON.stringify(body))
}

export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const p of request) parts.push(p as Buffer)
  return Buffer.concat(parts)
}
