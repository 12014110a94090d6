// Package domain is what a task is and how it may change: states, attempts, clocks, retries, evaluation. It is pure:
// it reads no clock, keeps no lock and knows nothing of the wire or of stores.
package domain
