// Package content is what the repository's rules are about: pins with their owners and ends, limits, and what can be wrong with
// content that is kept.
package content
