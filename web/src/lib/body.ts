import { ApiError, call } from './api'

/** The beginning of a body of bytes, and whether that is all of it. The rest is not fetched. */
export async function beginning(
  path: string,
  most: number,
  signal: AbortSignal,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; whole: boolean }> {
  const stop = new AbortController()
  const response = await call(path, { signal: AbortSignal.any([signal, stop.signal]), timeout: 0 })
  const parts: Uint8Array[] = []
  let size = 0
  const reader = response.body?.getReader()
  try {
    while (reader && size <= most) {
      const piece = await reader.read()
      if (piece.done) return { bytes: join(parts, size), whole: true }
      parts.push(piece.value)
      size += piece.value.length
    }
  } catch (cause) {
    if (signal.aborted) throw cause
    throw new ApiError(0, 'BROKEN', 'The connection broke before all of it was there.')
  } finally {
    stop.abort()
  }
  return { bytes: join(parts, size).subarray(0, most), whole: false }
}

function join(parts: Uint8Array[], size: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(size)
  let at = 0
  for (const p of parts) {
    all.set(p, at)
    at += p.length
  }
  return all
}
