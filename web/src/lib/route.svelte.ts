/** Where the page is: the fragment of its address, as /tasks/ID?state=FAILED. */
export interface Route {
  path: string[]
  query: URLSearchParams
}

export function parseRoute(hash: string): Route {
  const text = hash.replace(/^#\/?/, '')
  const at = text.indexOf('?')
  const path = (at < 0 ? text : text.slice(0, at)).split('/').filter((s) => s !== '')
  return { path: path.map(decode), query: new URLSearchParams(at < 0 ? '' : text.slice(at + 1)) }
}

function decode(s: string): string {
  try {
    return decodeURIComponent(s)
  } catch {
    return s
  }
}

export function href(...path: string[]): string {
  return '#/' + path.map(encodeURIComponent).join('/')
}

class Router {
  route: Route = $state.raw(parseRoute(typeof location === 'undefined' ? '' : location.hash))

  start(): () => void {
    const change = () => {
      this.route = parseRoute(location.hash)
    }
    change()
    window.addEventListener('hashchange', change)
    return () => window.removeEventListener('hashchange', change)
  }

  get screen(): string {
    return this.route.path[0] ?? 'overview'
  }

  go(...path: string[]): void {
    location.hash = href(...path)
  }

  /** Changes what is filtered by, without a step in the browser's history. */
  setQuery(query: Record<string, string>): void {
    const q = new URLSearchParams(Object.entries(query).filter(([, v]) => v !== ''))
    const s = q.toString()
    history.replaceState(null, '', '#/' + this.route.path.map(encodeURIComponent).join('/') + (s === '' ? '' : '?' + s))
    this.route = parseRoute(location.hash)
  }
}

export const router = new Router()
