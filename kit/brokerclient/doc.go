// Package brokerclient is how a service talks events with its broker: publish, send and subscribe, over streams that are
// opened again for as long as the service lives. It knows envelopes, never what an event means.
package brokerclient
