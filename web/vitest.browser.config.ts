import { defineConfig } from 'vitest/config'

// The machines that run these are slow and busy: limits are there to end what hangs, not to judge.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    environment: 'node',
    fileParallelism: false,
    testTimeout: 180_000,
    hookTimeout: 300_000,
    bail: 0,
  },
})
