package wazero

import (
	"fmt"
	"os"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/experimental/sysfs"

	"github.com/shallot-net/shallot/services/task/internal/engine"
)

// withDirs mounts /in and /out. The first goes through os.Root, which follows nothing that leads out of it.
func withDirs(config wazero.ModuleConfig, cfg engine.Config) (wazero.ModuleConfig, func(), error) {
	fs, closeDirs := wazero.NewFSConfig(), func() {}
	if cfg.In != "" {
		root, err := os.OpenRoot(cfg.In)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot open the input directory: %w", err)
		}
		closeDirs = func() { _ = root.Close() }
		fs = fs.WithFSMount(root.FS(), "/in")
	}
	if cfg.Out != "" {
		if s, ok := fs.(sysfs.FSConfig); ok {
			fs = s.WithSysFSMount(noLinks{sysfs.DirFS(cfg.Out)}, "/out")
		}
	}
	return config.WithFSConfig(fs), closeDirs, nil
}

// noLinks is a directory in which no link can be made. It begins empty and wazero cleans paths, so none leads out.
type noLinks struct{ sys.FS }

func (noLinks) Symlink(string, string) sys.Errno { return sys.EPERM }
func (noLinks) Link(string, string) sys.Errno    { return sys.EPERM }
