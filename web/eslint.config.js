import js from '@eslint/js'
import svelte from 'eslint-plugin-svelte'
import ts from 'typescript-eslint'

export default ts.config(
  { ignores: ['node_modules', '.tmp'] },
  js.configs.recommended,
  ...ts.configs.strict,
  ...svelte.configs['flat/recommended'],
  ...svelte.configs['flat/prettier'],
  {
    files: ['**/*.svelte', '**/*.svelte.ts'],
    languageOptions: { parserOptions: { parser: ts.parser } },
  },
  {
    languageOptions: {
      globals: Object.fromEntries(
        [
          'window',
          'document',
          'location',
          'history',
          'fetch',
          'console',
          'process',
          'URL',
          'Buffer',
          'setTimeout',
          'clearTimeout',
          'setInterval',
          'clearInterval',
        ].map((n) => [n, 'readonly']),
      ),
    },
    rules: {
      'no-undef': 'off', // TypeScript finds these
      'svelte/no-at-html-tags': 'error', // what nodes and tasks say is text
      'svelte/no-navigation-without-resolve': 'off', // a rule for SvelteKit
      'svelte/prefer-svelte-reactivity': 'off', // Maps and Dates here are values that are replaced, not changed
      'no-restricted-properties': ['error', { property: 'innerHTML' }, { property: 'outerHTML' }, { property: 'insertAdjacentHTML' }],
    },
  },
)
