// Package tracing makes OpenTelemetry spans of what the processes of one node do, and sends them to the collector of its operator. A trace ends at the node: its id
// travels between the node's own processes alone, and nothing that the broker sends to other nodes has one. What a span may say is decided here: names, task ids,
// types, reasons and codes; no peer, no address, no key and no payload, whatever the libraries in between would add.
package tracing
