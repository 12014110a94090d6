import { defineConfig } from 'vitest/config'

// The machines that run these are slow and busy: limits are there to end what hangs, not to judge.
const limits = { environment: 'node', testTimeout: 180_000, hookTimeout: 300_000 } as const

export default defineConfig({
  test: {
    fileParallelism: false,
    projects: [
      { test: { ...limits, name: 'alone', include: ['test/*.test.ts'], sequence: { groupOrder: 1 } } },
      {
        test: {
          ...limits,
          name: 'real',
          include: ['test/real/*.test.ts'],
          globalSetup: 'test/support/setup.ts',
          sequence: { groupOrder: 0 },
        },
      },
    ],
  },
})
