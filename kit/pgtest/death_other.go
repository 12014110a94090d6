//go:build !linux

package pgtest

import "syscall"

func dieWithTests(*syscall.SysProcAttr) {}
