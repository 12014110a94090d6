// Package version says which build of the suite a program is.
package version

// Version is set by the linker: -X github.com/shallot-net/shallot/kit/version.Version=v1.2.3. All programs of one
// build have the same.
var Version = ""

// String is Version, or "dev" where a program was built without one.
func String() string {
	if Version == "" {
		return "dev"
	}
	return Version
}
