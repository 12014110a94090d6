//go:build !linux

package child

func fileMappings() func() { return func() {} }
