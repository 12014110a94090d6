// Package rpc builds every gRPC server and client of the suite, with the same deadlines, error mapping,
// metrics, limits, health and reflection.
package rpc
