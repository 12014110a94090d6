// Package fake has services in memory that do what the real ones promise to node, over real gRPC: they keep state,
// recognise repeats, tell their outbox again, and can be stopped and started like processes. Nothing is encrypted.
package fake
