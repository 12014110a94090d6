// Package domain holds what a metric is, when it is sane, when it has changed enough to be told, and which ones are known.
package domain
