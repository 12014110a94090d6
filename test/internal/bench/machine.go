package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// Machine says where the figures are from.
type Machine struct {
	Cores     int     `json:"cores"`
	CPU       string  `json:"cpu"`
	MemoryGiB float64 `json:"memory_gib"`
	Kernel    string  `json:"kernel"`
	// FileSystem is the kind that the homes are on, as statfs names it.
	FileSystem string  `json:"file_system"`
	LoadBefore float64 `json:"load_before"`
	LoadAfter  float64 `json:"load_after"`
	// StolenPercent of a core is what the machine's own host took away meanwhile.
	StolenPercent float64 `json:"stolen_percent"`
}

func thisMachine(dir string) Machine {
	m := Machine{Cores: runtime.NumCPU(), LoadBefore: load(), Kernel: word("/proc/sys/kernel/osrelease", 0), FileSystem: fileSystem(dir)}
	for _, line := range lines("/proc/cpuinfo") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			m.CPU = strings.TrimSpace(v)
			break
		}
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		m.MemoryGiB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	}
	return m
}

// load is the load average of the last minute.
func load() float64 {
	v, _ := strconv.ParseFloat(word("/proc/loadavg", 0), 64)
	return v
}

// stolen is the time in seconds, of all cores, that the host gave to others.
func stolen() float64 {
	const userHZ = 100
	v, _ := strconv.ParseFloat(word("/proc/stat", 8), 64)
	return v / userHZ
}

func word(path string, i int) string {
	if l := lines(path); len(l) > 0 {
		if f := strings.Fields(l[0]); len(f) > i {
			return f[i]
		}
	}
	return ""
}

func lines(path string) []string {
	b, _ := os.ReadFile(path)
	return strings.Split(string(b), "\n")
}

func fileSystem(dir string) string {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return "unknown"
	}
	switch st.Type {
	case 0x01021994:
		return "tmpfs"
	case 0xef53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x9123683e:
		return "btrfs"
	case 0x794c7630:
		return "overlay"
	case 0x2fc12fc1:
		return "zfs"
	}
	return fmt.Sprintf("%#x", st.Type)
}

// versions names what was measured and what the floors are made of.
func versions(bin string) map[string]string {
	v := map[string]string{"go": runtime.Version()}
	if out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		v["git"] = strings.TrimSpace(string(out))
	}
	if out, err := exec.Command(filepath.Join(bin, "shallot-task"), "--version").Output(); err == nil {
		v["shallot-task"] = strings.TrimSpace(string(out))
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, d := range b.Deps {
			switch d.Path {
			case "filippo.io/age", "github.com/libp2p/go-libp2p", "google.golang.org/grpc", "modernc.org/sqlite",
				"github.com/tetratelabs/wazero", "github.com/bytecodealliance/wasmtime-go/v44":
				v[d.Path] = d.Version
			}
		}
	}
	return v
}
