// Package wire translates between the contracts and the domain. Everything that it decodes may come from a hostile peer: it
// checks form and bounds, so that the use cases see only values of the shape that their types promise.
package wire
