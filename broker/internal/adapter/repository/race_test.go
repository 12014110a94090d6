//go:build race

package repository

func init() { raceDetector = true }
