export type Theme = 'auto' | 'light' | 'dark'

const key = 'shallot-theme'

function stored(): Theme {
  try {
    const t = localStorage.getItem(key)
    return t === 'light' || t === 'dark' ? t : 'auto'
  } catch {
    return 'auto' // a browser that keeps nothing
  }
}

/** How the page looks; changes counts up, for what draws with colours that it has read. */
export const theme = $state({ choice: stored(), changes: 0 })

export function applyTheme(): void {
  document.documentElement.dataset['theme'] = theme.choice
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => theme.changes++)
}

export function nextTheme(): void {
  theme.choice = theme.choice === 'auto' ? 'light' : theme.choice === 'light' ? 'dark' : 'auto'
  document.documentElement.dataset['theme'] = theme.choice
  theme.changes++
  try {
    localStorage.setItem(key, theme.choice)
  } catch {
    // As above.
  }
}
