// Package executor has the executors that come with shallot-task: sum, which runs in this process, and wasm, which runs
// in a small pool of child processes.
package executor

import (
	"log/slog"
	"time"
)

// Config of the wasm executor. Zero fields get the defaults.
type Config struct {
	Binary string // the shallot-executor-wasm to start
	Dir    string // for the module cache and the children's directories; it must be on one file system
	// Warm children are kept ready, also when nothing runs: default 1. Max is how many there may be at all, which is how
	// many programs can run side by side: default 4.
	Warm, Max int
	// CompileTime, of the CPU, and CompileMemory bound what compiling one module may take: default 30 s and 1 GiB.
	// CompileWall bounds the time on the clock: default 3 min. What takes that long did not get the CPU, which is this
	// machine's fault and not the module's.
	CompileTime   time.Duration
	CompileWall   time.Duration
	CompileMemory int64
	// CacheBytes bound the compiled modules on disk: default 1 GiB. ResidentModules and ResidentBytes bound those that
	// each child holds in memory: default 16 and 64 MiB.
	CacheBytes      int64
	ResidentModules int
	ResidentBytes   int64
	// FileSize bounds one file that a program writes: default 1 GiB.
	FileSize int64
	// A child is replaced after Runs programs, default 10,000, when it has more than IdleMemory bytes resident after one,
	// default 192 MiB, and after RefreshTime without work since it ran something, default 60 s. Children beyond Warm end
	// after IdleTime without work, default 30 s.
	Runs        int
	IdleMemory  int64
	IdleTime    time.Duration
	RefreshTime time.Duration
	Log         *slog.Logger // default: none
}

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def64 := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	defTime := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Warm, 1)
	def(&c.Max, 4)
	c.Max = max(c.Max, c.Warm)
	defTime(&c.CompileTime, 30*time.Second)
	defTime(&c.CompileWall, 3*time.Minute)
	def64(&c.CompileMemory, 1<<30)
	def64(&c.CacheBytes, 1<<30)
	def(&c.ResidentModules, 16)
	def64(&c.ResidentBytes, 64<<20)
	def64(&c.FileSize, 1<<30)
	def(&c.Runs, 10_000)
	def64(&c.IdleMemory, 192<<20)
	defTime(&c.IdleTime, 30*time.Second)
	defTime(&c.RefreshTime, 60*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Directories below Config.Dir.
const (
	dirChildren = "children"
	dirModules  = "modules"
)
