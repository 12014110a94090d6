// Package domain holds what discovery knows of peers: their announcements, and the rules by which the peer table changes.
package domain
