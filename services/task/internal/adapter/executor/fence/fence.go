// Package fence shuts a process in: what it can no longer do, no program that breaks out of its sandbox can do. Each
// fence is put up where the kernel gives it, and what holds is reported, never assumed.
package fence

// Config says what the process keeps.
type Config struct {
	// Root is the directory to which file access is confined; the process must be in it, with the directories below.
	// ReadOnly and Writable are directories in it, relative.
	Root               string
	ReadOnly, Writable []string
	// ParentNetwork is what Network gives in the parent.
	ParentNetwork string
	Files         uint64 // open files
	FileSize      uint64 // bytes of one file that it writes
	CPUSeconds    uint64 // of its whole life
}

// Names of fences, as Describe reports them.
const (
	Rlimits    = "rlimits"    // open files, file sizes, CPU time, no core dumps
	Namespaces = "namespaces" // its own user, network and IPC namespace, the network one without any interface
	Chroot     = "chroot"     // Root is all the file system there is
	Landlock   = "landlock"   // files only below ReadOnly and Writable, no TCP
	NoPrivs    = "noprivs"    // no capabilities, and none to be had
	Seccomp    = "seccomp"    // only the system calls that a run takes
)
