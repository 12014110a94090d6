// The site of these pages: `make docs` builds it into dist/docs. It asks nobody but its own server for anything.
import { copyFileSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { slug } from 'github-slugger'
import { defineConfig } from 'vitepress'
import { attachments, docs, sources } from './forge'
import { nav, sidebar } from './pages'

export default defineConfig({
  title: 'Shallot',
  description: 'A decentralised compute network, without a central server',
  lang: 'en',
  outDir: '../dist/docs',
  cacheDir: 'node_modules/.vitepress',
  head: [['link', { rel: 'icon', href: '/favicon.svg', type: 'image/svg+xml' }]],
  // The links from one page to another are checked where the forge's are, together with their anchors.
  ignoreDeadLinks: [/events\.asyncapi\.yaml$/],
  markdown: {
    // Headings have the anchors that the forge gives them.
    anchor: { slugify: (heading) => slug(heading) },
    config: sources,
  },
  themeConfig: {
    nav,
    sidebar,
    search: { provider: 'local' },
    outline: { level: [2, 3] },
    docFooter: { prev: 'Before', next: 'Next' },
    footer: { message: 'Apache License 2.0' },
  },
  transformPageData(page) {
    // Hundreds of third headings beside a reference are no outline, and wide tables need its room more.
    if (page.relativePath.startsWith('reference/')) page.frontmatter['outline'] ??= 2
    if (['reference/errors.md', 'settings.md', 'metrics.md'].includes(page.relativePath)) page.frontmatter['aside'] ??= false
  },
  buildEnd({ outDir }) {
    for (const file of attachments) {
      mkdirSync(dirname(join(outDir, file)), { recursive: true })
      copyFileSync(join(docs, file), join(outDir, file))
    }
    copyFileSync(join(docs, '../web/src/favicon.svg'), join(outDir, 'favicon.svg'))
  },
})
