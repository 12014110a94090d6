// Package app has what the use cases of both roles share: the ports, the outbox, the sessions with node. The use cases
// themselves are in consumer and provider.
package app
