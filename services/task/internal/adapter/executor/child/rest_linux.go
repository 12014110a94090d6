package child

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fileMappings returns what lets go of the pages of this program's file. It looks for them now, while /proc can be seen,
// and takes only such that were never written to, relocations included: those pages would come back as they are in
// the file.
func fileMappings() func() {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return func() {}
	}
	defer f.Close()
	exe, _ := os.Readlink("/proc/self/exe")
	var all [][2]uintptr
	var at [2]uintptr // of the mapping whose lines are read, if it is a candidate
	s := bufio.NewScanner(f)
	for s.Scan() {
		if from, to, ok := mappingOf(s.Bytes(), exe); ok {
			at = [2]uintptr{from, to}
		} else if rest, ok := bytes.CutPrefix(s.Bytes(), []byte("Anonymous:")); ok {
			if at[1] != 0 && string(bytes.TrimSpace(rest)) == "0 kB" {
				all = append(all, at)
			}
			at = [2]uintptr{}
		}
	}
	return func() {
		for _, m := range all {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED)
		}
	}
}

// mappingOf reads the first line of a mapping that is of the file exe, private, and not writable.
func mappingOf(line []byte, exe string) (from, to uintptr, ok bool) {
	fields := strings.Fields(string(line))
	if len(fields) != 6 || fields[5] != exe || strings.Contains(fields[1], "w") || !strings.HasSuffix(fields[1], "p") {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(fields[0], "-")
	x, err1 := strconv.ParseUint(a, 16, 64)
	y, err2 := strconv.ParseUint(b, 16, 64)
	return uintptr(x), uintptr(y), err1 == nil && err2 == nil
}
