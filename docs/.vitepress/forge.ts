// Pages are read on the forge and here. So they link to each other, and to files of the repository, by relative paths to sources, and what
// lies outside of docs/ is shown by the forge. Whether a target is there, scripts/links.mjs says for both.
import { existsSync, statSync } from 'node:fs'
import { dirname, relative, resolve } from 'node:path'
import type { MarkdownRenderer } from 'vitepress'

export const docs = resolve(import.meta.dirname, '..')
const repository = resolve(docs, '..')
const forge = 'https://github.com/shallot-net/shallot'

/** Files of docs/ that are no pages, but which pages link to: the site has them as they are. */
export const attachments = ['reference/events.asyncapi.yaml']

function elsewhere(href: string, page: string): string | undefined {
  const [path = '', anchor] = href.split('#')
  if (path === '' || path.startsWith('/') || /^[a-z][a-z+.-]*:/i.test(path)) return undefined
  const target = resolve(dirname(page), decodeURI(path))
  const inside = relative(docs, target)
  if (attachments.includes(inside)) return undefined
  if (!inside.startsWith('..') && existsSync(target) && statSync(target).isFile() && target.endsWith('.md')) return undefined
  const kind = existsSync(target) && statSync(target).isDirectory() ? 'tree' : 'blob'
  return `${forge}/${kind}/main/${relative(repository, target)}${anchor === undefined ? '' : `#${anchor}`}`
}

/** Makes links and pictures of sources those of the site, and text what it is: nothing in a page is a template or markup. */
export function sources(md: MarkdownRenderer): void {
  md.set({ html: false })
  // Indented code is code as that between fences is.
  md.core.ruler.push('indented-code', (state) => {
    for (const token of state.tokens)
      if (token.type === 'code_block') Object.assign(token, { type: 'fence', tag: 'code', markup: '```', info: 'text' })
  })
  const rules = md.renderer.rules
  const link = rules['link_open']
  rules['link_open'] = (tokens, index, options, env: { path: string }, self) => {
    const href = tokens[index]?.attrGet('href')
    const away = href ? elsewhere(href, env.path) : undefined
    if (away) tokens[index]?.attrSet('href', away)
    return link ? link(tokens, index, options, env, self) : self.renderToken(tokens, index, options)
  }
  // A picture NAME-light.png has a sister for dark pages.
  const image = rules['image']
  rules['image'] = (tokens, index, options, env: { path: string }, self) => {
    const draw = () => (image ? image(tokens, index, options, env, self) : self.renderToken(tokens, index, options))
    const token = tokens[index]
    const src = token?.attrGet('src')
    if (!token || !src?.endsWith('-light.png')) return draw()
    token.attrSet('class', 'by-day')
    const day = draw()
    token.attrSet('src', src.replace(/-light\.png$/, '-dark.png'))
    token.attrSet('class', 'by-night')
    return day + draw()
  }
  const text = rules['text']
  rules['text'] = (tokens, index, options, env, self) => {
    const html = text ? text(tokens, index, options, env, self) : md.utils.escapeHtml(tokens[index]?.content ?? '')
    return html.replaceAll('{{', '&#123;&#123;')
  }
}
