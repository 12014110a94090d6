// Package home knows where one node keeps its files and sockets.
package home
