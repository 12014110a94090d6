/** The pause before try n, from 0, in milliseconds: between half and all of 0.5 s, 1 s, 2 s … 15 s. */
export function backoff(n: number, random: () => number = Math.random): number {
  const most = Math.min(500 * 2 ** Math.min(n, 10), 15_000)
  return most / 2 + (random() * most) / 2
}

/** Ends after the time, or at once when the signal says stop. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal.addEventListener('abort', end)
  })
}

/** Ends when somebody looks at the page. */
export function visible(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) return resolve()
    const look = () => {
      if (document.hidden && !signal.aborted) return
      document.removeEventListener('visibilitychange', look)
      signal.removeEventListener('abort', look)
      resolve()
    }
    document.addEventListener('visibilitychange', look)
    signal.addEventListener('abort', look)
  })
}

/** Lets the browser do what waits: keys, the pointer, drawing. */
export function breath(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve))
}
