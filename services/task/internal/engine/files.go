package engine

import (
	"slices"
	"strings"
)

// noFiles are the functions of WASI preview 1 with which a program gets at nothing but its own streams, arguments,
// environment, clocks and random bytes: it needs one of the others to find out about a directory or to open a file.
var noFiles = []string{
	"args_get", "args_sizes_get", "clock_res_get", "clock_time_get", "environ_get", "environ_sizes_get",
	"fd_close", "fd_fdstat_get", "fd_read", "fd_seek", "fd_tell", "fd_write",
	"poll_oneoff", "proc_exit", "proc_raise", "random_get", "sched_yield",
}

// ReachesFiles tells whether a program that imports a function of that name could see or make a file.
func ReachesFiles(function string) bool {
	_, found := slices.BinarySearchFunc(noFiles, function, strings.Compare)
	return !found
}
