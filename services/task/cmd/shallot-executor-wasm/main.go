// Command shallot-executor-wasm compiles and runs wasm programs for shallot-task, which starts it, speaks
// shallot.executor.v1 to it over an inherited socket, and ends it when a program has to stop. It is not for people.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/shallot-net/shallot/kit/version"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/child"
)

func main() {
	var cfg child.Config
	showVersion := flag.Bool("version", false, "print the version")
	flag.StringVar(&cfg.Root, "root", "", "the process's own `directory`")
	flag.Uint64Var(&cfg.CompileMemory, "compile-memory", 1<<30, "`bytes` that compiling a module may take")
	flag.Uint64Var(&cfg.FileSize, "file-size", 1<<30, "`bytes` of one file that a program may write")
	flag.Uint64Var(&cfg.OpenFiles, "open-files", 256, "files that may be open at a time")
	flag.Uint64Var(&cfg.CPUSeconds, "cpu-seconds", 30*24*60*60, "`seconds` of CPU time of the whole process")
	flag.StringVar(&cfg.ParentNetwork, "parent-network", "", "the parent's network `namespace`, to tell whether this process has its own")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "shallot-executor-wasm: compiles and runs WebAssembly programs for shallot-task.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *showVersion {
		fmt.Println("shallot-executor-wasm", version.String())
		return
	}
	if err := child.Serve(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "shallot-executor-wasm:", err)
		os.Exit(1)
	}
}
