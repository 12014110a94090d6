// Package findings is what can be wrong with a node and what would mend it, for those who look: the node itself, and `shallot doctor`, which also sees what a
// node that does not run cannot say.
package findings

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
)

// How bad a finding is. A warning is worth knowing and makes nothing fail.
const (
	OK      = "ok"
	Warning = "warning"
	Wrong   = "wrong"
)

// Finding is the outcome of one check.
type Finding struct {
	Check, Status string
	Detail        string // what was found
	Mend          string // what to do where it is not right
}

// Good is a finding that all is well.
func Good(check, format string, args ...any) Finding {
	return Finding{check, OK, fmt.Sprintf(format, args...), ""}
}

// Warn is a finding that is worth knowing.
func Warn(check, mend, format string, args ...any) Finding {
	return Finding{check, Warning, fmt.Sprintf(format, args...), mend}
}

// Bad is a finding of something that has to be mended.
func Bad(check, mend, format string, args ...any) Finding {
	return Finding{check, Wrong, fmt.Sprintf(format, args...), mend}
}

// Bounds of free space: below the first nothing works, below the second it soon will not.
const (
	fullDisk   = 64 << 20
	scarceDisk = 1 << 30
)

// Disk looks at the file system of a home.
func Disk(home string) Finding {
	free, err := FreeSpace(home)
	return disk(home, free, err)
}

func disk(home string, free uint64, err error) Finding {
	mend := "make room on the file system of " + home
	switch {
	case err != nil:
		return Warn("disk", "look at the file system of "+home, "cannot tell how much space is left: %v", err)
	case free < fullDisk:
		return Bad("disk", mend, "only %s are left", humanize.IBytes(free))
	case free < scarceDisk:
		return Warn("disk", mend, "only %s are left", humanize.IBytes(free))
	}
	return Good("disk", "%s free", humanize.IBytes(free))
}

// clockSlack is how far a file's time may be ahead: file systems and clocks are not that exact.
const clockSlack = time.Minute

// Clock looks at the clock: announcements, leases and retention times are compared with it. A file of the home that is newer than now shows that it was set back.
func Clock(home string, now time.Time) Finding {
	var newest time.Time
	for _, pattern := range []string{"state/*/*", "run/*", "logs/*"} {
		files, _ := filepath.Glob(filepath.Join(home, pattern)) // the pattern is right
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && info.ModTime().After(newest) {
				newest = info.ModTime()
			}
		}
	}
	switch synced, known := clockSynced(); {
	case newest.Sub(now) > clockSlack:
		return Bad("clock", "set the clock right, for example with NTP", "it says %s, but the node wrote a file at %s: it was set back", now.Format(time.RFC3339), newest.Format(time.RFC3339))
	case known && !synced:
		return Warn("clock", "run an NTP client, unless the host of this machine does", "the kernel does not know it to be synchronised")
	}
	return Good("clock", "%s", now.UTC().Format(time.RFC3339))
}

// Reach is what is known of the network.
type Reach struct {
	Online   bool
	Tor      string // in anonymous mode: its state, in words
	TorLog   string // where more is to be read of it; empty: nowhere that this program knows
	Provider bool   // the node's role
	Known    uint32 // providers
	Peers    uint32 // that are connected
}

// Network looks at whether there is anybody.
func Network(r Reach) Finding {
	const join = "give the address of a node that runs: shallot up --bootstrap ADDRESS, or shallot node connect ADDRESS"
	switch {
	case !r.Online && r.Tor != "":
		read := ""
		if r.TorLog != "" {
			read = ", or read " + r.TorLog
		}
		return Bad("network", "wait"+read+"; where Tor is blocked, start the node with --bridge", "the network cannot be reached: tor is %s", r.Tor)
	case !r.Online:
		return Bad("network", "look whether this machine has a network, then "+join, "the network cannot be reached")
	case r.Known == 0 && !r.Provider:
		return Bad("network", join, "no provider is known, so no task can run")
	case r.Known == 0:
		return Warn("network", join, "no other provider is known")
	}
	return Good("network", "%d providers known, %d peers connected", r.Known, r.Peers)
}

// Fence is of an anonymous node that runs without one.
func Fence() Finding {
	return Warn("fence", "restart the node without --unfenced", "the node runs without one: a mistake in a program can show where this machine is")
}
