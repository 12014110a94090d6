package supervisor

import (
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/shallot-net/shallot/kit/home"
)

// configured tells whether the user has set a key of a process, in the environment or in HOME/config.yaml. A flag would
// win over both, so the supervisor gives none then. A file that cannot be read is for the process to complain of.
func configured(h home.Home, process, key string) bool {
	if _, ok := os.LookupEnv("SHALLOT_" + strings.ToUpper(process+"_"+key)); ok {
		return true
	}
	data, err := os.ReadFile(filepath.Join(h.Dir, "config.yaml"))
	if err != nil || len(data) > maxJSON {
		return false
	}
	var sections map[string]map[string]any
	if yaml.Unmarshal(data, &sections) != nil {
		return false
	}
	_, ok := sections[process][key]
	return ok
}
