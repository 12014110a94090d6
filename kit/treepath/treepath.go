// Package treepath says which names the files of a directory may have when it travels: as inputs of a task, in its result, as content. The
// names come from somebody else's machine, so whoever makes files of them checks them first, and makes them through os.Root.
package treepath

import (
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of one path, in bytes and in names, and how many files one tree has at most.
const (
	MaxPath  = 1024
	MaxName  = 255
	MaxDepth = 64
	MaxFiles = 1000
)

// Error says what is wrong with a path. The text names no path, so that the caller can say which it is, and whose.
type Error string

func (e Error) Error() string { return string(e) }

// Check tells whether p is the clean, relative, slash-separated path of something below a directory. An error is an Error.
func Check(p string) error {
	switch {
	case p == "":
		return Error("it is empty")
	case len(p) > MaxPath:
		return Error(fmt.Sprintf("it has %d bytes, and a path may have %d", len(p), MaxPath))
	case !utf8.ValidString(p):
		return Error("it is not valid UTF-8")
	case strings.ContainsFunc(p, unicode.IsControl):
		return Error("it has a control character in it")
	case p[0] == '/':
		return Error("it is absolute")
	case path.Clean(p) != p || p == ".":
		return Error("it is not clean: it must have no \".\", no \"//\" and no slash at its end")
	case p == ".." || strings.HasPrefix(p, "../"):
		return Error("it leads out of its directory")
	case strings.Count(p, "/") >= MaxDepth:
		return Error(fmt.Sprintf("it is %d directories deep, and %d are possible", strings.Count(p, "/"), MaxDepth-1))
	}
	for name := range strings.SplitSeq(p, "/") {
		if len(name) > MaxName {
			return Error(fmt.Sprintf("a name in it has %d bytes, and a name may have %d", len(name), MaxName))
		}
	}
	return nil
}

// CheckAll checks the paths of one tree's files: each for itself, none twice, none a file and a directory, and not too many. The error says
// which path it is.
func CheckAll(paths []string) error { return CheckMost(paths, MaxFiles) }

// CheckMost is CheckAll with another bound of their number.
func CheckMost(paths []string, most int) error {
	if len(paths) > most {
		return fmt.Errorf("there are %d files, and %d are possible", len(paths), most)
	}
	files := make(map[string]bool, len(paths))
	for _, p := range paths {
		if err := Check(p); err != nil {
			return fmt.Errorf("the path %q cannot be used: %w", Shown(p), err)
		}
		if files[p] {
			return fmt.Errorf("the path %q is there twice", Shown(p))
		}
		files[p] = true
	}
	for _, p := range paths {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			if files[dir] {
				return fmt.Errorf("the path %q is a file, and a directory for %q", Shown(dir), Shown(p))
			}
		}
	}
	return nil
}

// shown is how many bytes of a path a message has room for.
const shown = 128

// Shown cuts a path for a message.
func Shown(p string) string {
	if len(p) <= shown {
		return p
	}
	return p[:shown] + "…"
}
