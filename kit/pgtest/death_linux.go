package pgtest

import "syscall"

// dieWithTests has the server end when the process of the tests is killed, as by their time limit.
func dieWithTests(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGQUIT }
