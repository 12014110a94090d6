/** The time of day, in milliseconds since 1970, that what is shown as "… ago" is reckoned by. */
export const now = $state({ ms: Date.now() })

/** Makes the clock go; returns what stops it. */
export function startClock(): () => void {
  const timer = setInterval(() => {
    if (!document.hidden) now.ms = Date.now()
  }, 1000)
  return () => clearInterval(timer)
}
