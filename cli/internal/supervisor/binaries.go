package supervisor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
)

// Finder knows where the binaries of processes are.
type Finder struct {
	Dirs []string // looked at first
	Path bool     // then $PATH
}

// BesideSelf looks beside the running program, then in $PATH.
func BesideSelf() Finder {
	f := Finder{Path: true}
	self, err := os.Executable()
	if err != nil {
		return f
	}
	f.Dirs = append(f.Dirs, filepath.Dir(self))
	if real, err := filepath.EvalSymlinks(self); err == nil && filepath.Dir(real) != f.Dirs[0] {
		f.Dirs = append(f.Dirs, filepath.Dir(real))
	}
	return f
}

// Find returns the path of shallot-<process>.
func (f Finder) Find(process string) (string, error) {
	name := "shallot-" + process
	for _, dir := range f.Dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	if f.Path {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", f.missing(name)
}

func (f Finder) missing(names ...string) error {
	looked := strings.Join(f.Dirs, ", ")
	if f.Path {
		looked = strings.TrimPrefix(looked+" and $PATH", " and ")
	}
	what := "the program " + names[0] + " is"
	if len(names) > 1 {
		what = "the programs " + strings.Join(names, ", ") + " are"
	}
	return fault.FailedPrecondition("BINARY_NOT_FOUND", "%s missing: looked in %s; build with 'make build', or install it beside shallot", what, looked)
}

// FindAll returns the paths of all processes, or one error that names every missing one.
func (f Finder) FindAll(processes []string) (map[string]string, error) {
	paths := map[string]string{}
	var names []string
	for _, p := range processes {
		path, err := f.Find(p)
		if err != nil {
			names = append(names, "shallot-"+p)
			continue
		}
		paths[p] = path
	}
	if len(names) > 0 {
		return nil, f.missing(names...)
	}
	return paths, nil
}
